/* SPDX-License-Identifier: MIT */
/*
 * Device state: a device's guest-visible state is one plain struct, described by a table of fields.
 * Reset, snapshots, the monitor's `info` and the comparison of two machines in tests all read that
 * table.
 */
#ifndef CORE_STATE_H
#define CORE_STATE_H

#include "lib/error.h"
#include "lib/strbuf.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum field_type {
	FIELD_UINT,   /* unsigned integer of 1, 2, 4 or 8 bytes (`size`), `count` of them */
	FIELD_BYTES,  /* `count` raw bytes */
	FIELD_TIMER,  /* a struct timer: saved as pending + deadline; reset cancels it */
	FIELD_STRUCT, /* `count` structs of `size` bytes described by `sub` */
	FIELD_BOOL,   /* `count` bools: loading makes them true or false, whatever the file says */
};

struct state_field {
	const char *name; /* NULL ends the table */
	enum field_type type;
	uint32_t offset;
	uint32_t size;  /* bytes of one element */
	uint32_t count; /* elements */
	const struct state_field *sub;
	unsigned since; /* first version of the description that has it; 0 and 1 are the same */
};

/* The type of an integer or bool. */
#define STATE_TYPE(lvalue) _Generic((lvalue), bool : FIELD_BOOL, default : FIELD_UINT)

/* Table entries. `s` is the struct, `f` the member. */
#define STATE_UINT(s, f)                                                                           \
	{                                                                                          \
#f, STATE_TYPE(((struct s *)0)->f), offsetof(struct s, f),                         \
			sizeof(((struct s *)0)->f), 1, NULL, 0                                     \
	}
#define STATE_UINTS(s, f)                                                                          \
	{                                                                                          \
#f, STATE_TYPE(((struct s *)0)->f[0]), offsetof(struct s, f),                      \
			sizeof(((struct s *)0)->f[0]),                                             \
			sizeof(((struct s *)0)->f) / sizeof(((struct s *)0)->f[0]), NULL, 0        \
	}
#define STATE_BYTES(s, f)                                                                          \
	{                                                                                          \
#f, FIELD_BYTES, offsetof(struct s, f), 1, sizeof(((struct s *)0)->f), NULL, 0     \
	}
#define STATE_TIMER(s, f)                                                                          \
	{                                                                                          \
#f, FIELD_TIMER, offsetof(struct s, f), sizeof(struct timer), 1, NULL, 0           \
	}
#define STATE_STRUCTS(s, f, subtable)                                                              \
	{                                                                                          \
#f, FIELD_STRUCT, offsetof(struct s, f), sizeof(((struct s *)0)->f[0]),            \
			sizeof(((struct s *)0)->f) / sizeof(((struct s *)0)->f[0]), subtable, 0    \
	}
#define STATE_END                                                                                  \
	{                                                                                          \
		NULL, FIELD_UINT, 0, 0, 0, NULL, 0                                                 \
	}

struct state_desc {
	const char *name; /* "i8259", "ide", ... */
	unsigned version; /* of the table; starts at 1 */
	const struct state_field *fields;
	/* Brings the device to its power-on state, after the registry zeroed every field in the
	 * table (and cancelled its timers). May be NULL. Interrupt lines must be driven to match.
	 */
	void (*reset)(void *opaque);
	/* Before saving and printing: bring lazily computed fields up to date. May be NULL. */
	void (*pre_save)(void *opaque);
	/* After loading: bound every index that came from the file, re-derive what is not in the
	 * table. May be NULL. */
	int (*post_load)(void *opaque, unsigned version, struct error *err);
};

struct state_registry;

struct state_registry *state_registry_new(void);
void state_registry_free(struct state_registry *reg);
/* `instance` tells several of one kind apart (COM1 = 0, COM2 = 1). `base` is the struct the offsets
 * refer to. The descriptor must stay valid. */
void state_register(struct state_registry *reg, const struct state_desc *desc, int instance,
		    void *base);
void state_unregister(struct state_registry *reg, void *base);
/* System reset: every device in registration order. Lock held, vCPUs paused. */
void state_reset_all(struct state_registry *reg);
/* Prints "name.instance" and its fields, one a line; all devices when name is NULL. False if there
 * is no such. */
bool state_print(struct state_registry *reg, const char *name, struct strbuf *out);
/* Serialises all devices into `out`. */
void state_save(struct state_registry *reg, struct strbuf *out);
/*
 * Loads them back, with every length and name checked before anything changes. The devices are
 * reset first, so that nothing of what they were doing goes on. When one finds its state damaged,
 * all are reset again: what cannot be trusted never runs. Lock held, vCPUs paused.
 */
int state_load(struct state_registry *reg, const void *data, size_t len, struct error *err);

#endif
