/* SPDX-License-Identifier: MIT */
/*
 * The registry of device states: reset, printing, saving and loading, all driven by the field
 * tables.
 *
 * Saved form (little-endian), self-describing so that a damaged or foreign file is noticed before
 * it does harm:
 *
 *   file    "MVSTATE1"  u32 devices  device...
 *   device  string name  u32 instance  u32 version  u32 length  fields (length bytes)
 *   field   string name  u8 type  u32 size  u32 count  payload
 *   string  u8 length  bytes
 *
 * Payloads: FIELD_UINT count * size bytes; FIELD_BYTES and FIELD_BOOL count bytes; FIELD_TIMER u8
 * pending, u64 deadline in virtual ns; FIELD_STRUCT count times the fields of the subtable. Timers
 * and the times in devices are on the virtual clock, so the clock must be put back to its saved
 * value before.
 *
 * A load first checks the whole file against the tables and changes nothing unless it fits.
 */
#include "core/state.h"
#include "lib/bytes.h"
#include "lib/clock.h"
#include "lib/list.h"
#include "lib/text.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char magic[8] = "MVSTATE1";

struct entry {
	const struct state_desc *desc;
	int instance;
	void *base;
	bool seen; /* while loading */
	struct list link;
};

struct state_registry {
	struct list entries; /* in registration order */
};

struct state_registry *state_registry_new(void)
{
	struct state_registry *reg = xcalloc(1, sizeof(*reg));
	list_init(&reg->entries);
	return reg;
}

void state_registry_free(struct state_registry *reg)
{
	struct list *it, *tmp;

	if (!reg)
		return;
	list_for_each_safe(it, tmp, &reg->entries) free(list_entry(it, struct entry, link));
	free(reg);
}

void state_register(struct state_registry *reg, const struct state_desc *desc, int instance,
		    void *base)
{
	struct entry *e = xcalloc(1, sizeof(*e));
	e->desc = desc;
	e->instance = instance;
	e->base = base;
	list_push_back(&reg->entries, &e->link);
}

void state_unregister(struct state_registry *reg, void *base)
{
	struct list *it, *tmp;

	list_for_each_safe(it, tmp, &reg->entries)
	{
		struct entry *e = list_entry(it, struct entry, link);
		if (e->base == base) {
			list_remove(it);
			free(e);
		}
	}
}

/* ---- reset ---- */

static void clear_fields(const struct state_field *f, char *base)
{
	for (; f->name; f++)
		for (uint32_t i = 0; i < f->count; i++) {
			char *p = base + f->offset + (size_t)i * f->size;
			if (f->type == FIELD_TIMER)
				timer_cancel((struct timer *)p);
			else if (f->type == FIELD_STRUCT)
				clear_fields(f->sub, p);
			else
				memset(p, 0, f->size);
		}
}

void state_reset_all(struct state_registry *reg)
{
	struct list *it;

	/* All are cleared before the first reset callback runs, so that a line driven by one device
	 * arrives at a chip that does not clear it again. */
	list_for_each(it, &reg->entries)
	{
		struct entry *e = list_entry(it, struct entry, link);
		clear_fields(e->desc->fields, e->base);
	}
	list_for_each(it, &reg->entries)
	{
		struct entry *e = list_entry(it, struct entry, link);
		if (e->desc->reset)
			e->desc->reset(e->base);
	}
}

/* ---- printing ---- */

static void print_fields(const struct state_field *f, const char *base, const char *prefix,
			 struct strbuf *out)
{
	for (; f->name; f++) {
		const char *p = base + f->offset;
		if (f->type == FIELD_STRUCT) {
			for (uint32_t i = 0; i < f->count; i++) {
				char *inner = f->count > 1
						      ? xasprintf("%s%s[%u].", prefix, f->name, i)
						      : xasprintf("%s%s.", prefix, f->name);
				print_fields(f->sub, p + (size_t)i * f->size, inner, out);
				free(inner);
			}
			continue;
		}
		strbuf_printf(out, "  %s%s =", prefix, f->name);
		for (uint32_t i = 0; i < f->count; i++) {
			const char *item = p + (size_t)i * f->size;
			if (f->count > 16 && i % 16 == 0)
				strbuf_printf(out, "\n    %04x:", i);
			if (f->type == FIELD_TIMER) {
				const struct timer *t = (const struct timer *)item;
				if (t->pending)
					strbuf_printf(out, " at %llu ns",
						      (unsigned long long)t->deadline_ns);
				else
					strbuf_puts(out, " idle");
			} else {
				strbuf_printf(out, " %0*llx", (int)f->size * 2,
					      (unsigned long long)load_le(item, f->size));
			}
		}
		strbuf_puts(out, "\n");
	}
}

bool state_print(struct state_registry *reg, const char *name, struct strbuf *out)
{
	bool found = false;
	struct list *it;

	list_for_each(it, &reg->entries)
	{
		struct entry *e = list_entry(it, struct entry, link);
		char *full = xasprintf("%s.%d", e->desc->name, e->instance);
		if (!name || !strcmp(name, e->desc->name) || !strcmp(name, full)) {
			found = true;
			if (e->desc->pre_save)
				e->desc->pre_save(e->base);
			strbuf_printf(out, "%s\n", full);
			print_fields(e->desc->fields, e->base, "", out);
		}
		free(full);
	}
	return found || !name;
}

/* ---- saving ---- */

static void put_uint(struct strbuf *out, uint64_t value, unsigned size)
{
	uint8_t bytes[8];
	store_le64(bytes, value);
	strbuf_append(out, bytes, size);
}

static void put_string(struct strbuf *out, const char *s)
{
	size_t len = strlen(s);
	if (len > 255)
		len = 255;
	put_uint(out, len, 1);
	strbuf_append(out, s, len);
}

static void save_fields(const struct state_field *f, const char *base, struct strbuf *out)
{
	for (; f->name; f++) {
		const char *p = base + f->offset;
		put_string(out, f->name);
		put_uint(out, f->type, 1);
		put_uint(out, f->type == FIELD_UINT ? f->size : 1, 4);
		put_uint(out, f->count, 4);
		for (uint32_t i = 0; i < f->count; i++) {
			const char *item = p + (size_t)i * f->size;
			if (f->type == FIELD_TIMER) {
				const struct timer *t = (const struct timer *)item;
				put_uint(out, t->pending, 1);
				put_uint(out, t->pending ? t->deadline_ns : 0, 8);
			} else if (f->type == FIELD_STRUCT) {
				save_fields(f->sub, item, out);
			} else {
				strbuf_append(out, item, f->size);
			}
		}
	}
}

void state_save(struct state_registry *reg, struct strbuf *out)
{
	uint32_t count = 0;
	struct list *it;

	list_for_each(it, &reg->entries) count++;
	strbuf_append(out, magic, sizeof(magic));
	put_uint(out, count, 4);
	list_for_each(it, &reg->entries)
	{
		struct entry *e = list_entry(it, struct entry, link);
		struct strbuf body = STRBUF_INIT;
		if (e->desc->pre_save)
			e->desc->pre_save(e->base);
		save_fields(e->desc->fields, e->base, &body);
		put_string(out, e->desc->name);
		put_uint(out, (uint32_t)e->instance, 4);
		put_uint(out, e->desc->version ? e->desc->version : 1, 4);
		put_uint(out, body.len, 4);
		strbuf_append(out, strbuf_str(&body), body.len);
		strbuf_free(&body);
	}
}

/* ---- loading ---- */

struct reader {
	const uint8_t *p;
	size_t left;
	bool bad; /* ran past the end; everything read since is zero */
};

static const uint8_t *take(struct reader *r, size_t len)
{
	if (r->bad || len > r->left) {
		r->bad = true;
		return NULL;
	}
	const uint8_t *p = r->p;
	r->p += len;
	r->left -= len;
	return p;
}

static uint64_t get_uint(struct reader *r, unsigned size)
{
	const uint8_t *p = take(r, size);
	return p ? load_le(p, size) : 0;
}

static void get_string(struct reader *r, char out[256])
{
	size_t len = (size_t)get_uint(r, 1);
	const uint8_t *p = take(r, len);
	if (p)
		memcpy(out, p, len);
	out[p ? len : 0] = '\0';
}

/* Reads one table's fields; with `store` false only checks them. */
static int load_fields(struct reader *r, const struct state_field *f, char *base, unsigned version,
		       bool store, const char *device, struct error *err)
{
	for (; f->name; f++) {
		char name[256];
		if (f->since > version)
			continue; /* keeps its power-on value */
		get_string(r, name);
		unsigned type = (unsigned)get_uint(r, 1);
		uint32_t size = (uint32_t)get_uint(r, 4), count = (uint32_t)get_uint(r, 4);
		if (r->bad)
			return error_set(err, EINVAL, "the saved state of device '%s' is cut short",
					 device);
		if (strcmp(name, f->name) || type != f->type || count != f->count ||
		    size != (f->type == FIELD_UINT ? f->size : 1))
			return error_set(err, EINVAL,
					 "the saved state of device '%s' has field '%s' where '%s' "
					 "(%u x %u bytes) is expected",
					 device, name, f->name, f->count, f->size);
		for (uint32_t i = 0; i < f->count; i++) {
			char *item = base + f->offset + (size_t)i * f->size;
			if (f->type == FIELD_TIMER) {
				struct timer *t = (struct timer *)item;
				bool pending = get_uint(r, 1) != 0;
				uint64_t deadline = get_uint(r, 8);
				if (store && pending)
					timer_set(t, deadline);
				else if (store)
					timer_cancel(t);
			} else if (f->type == FIELD_STRUCT) {
				int ret = load_fields(r, f->sub, item, version, store, device, err);
				if (ret)
					return ret;
			} else if (f->type == FIELD_BOOL) {
				bool value = get_uint(r, 1) != 0;
				if (store)
					*(bool *)item = value;
			} else {
				const uint8_t *p = take(r, f->size);
				if (p && store)
					memcpy(item, p, f->size);
			}
		}
		if (r->bad)
			return error_set(err, EINVAL, "the saved state of device '%s' is cut short",
					 device);
	}
	return 0;
}

static struct entry *find(struct state_registry *reg, const char *name, int instance)
{
	struct list *it;

	list_for_each(it, &reg->entries)
	{
		struct entry *e = list_entry(it, struct entry, link);
		if (e->instance == instance && !strcmp(e->desc->name, name))
			return e;
	}
	return NULL;
}

static int load_device(struct state_registry *reg, struct reader *r, bool store, struct error *err)
{
	char name[256];

	get_string(r, name);
	int instance = (int)(uint32_t)get_uint(r, 4);
	unsigned version = (unsigned)get_uint(r, 4);
	uint32_t length = (uint32_t)get_uint(r, 4);
	const uint8_t *body = take(r, length);
	if (!body)
		return error_set(err, EINVAL, "the saved machine state is cut short");

	struct entry *e = find(reg, name, instance);
	if (!e)
		return error_set(err, EINVAL,
				 "the saved state has device '%s.%d', which this machine does not "
				 "have; start it with the options it was saved with",
				 name, instance);
	if (e->seen)
		return error_set(err, EINVAL, "the saved state has device '%s.%d' twice", name,
				 instance);
	unsigned newest = e->desc->version ? e->desc->version : 1;
	if (version == 0 || version > newest)
		return error_set(err, EINVAL,
				 "the saved state of device '%s' has version %u, but this minivm "
				 "knows versions up to %u",
				 name, version, newest);
	e->seen = true;
	struct reader inner = {.p = body, .left = length};
	int ret = load_fields(&inner, e->desc->fields, e->base, version, store, name, err);
	if (ret)
		return ret;
	if (inner.left)
		return error_set(err, EINVAL,
				 "the saved state of device '%s' is %zu bytes longer than expected",
				 name, inner.left);
	return 0;
}

static int load_all(struct state_registry *reg, const void *data, size_t len, bool store,
		    struct error *err)
{
	struct reader r = {.p = data, .left = len};
	const uint8_t *head = take(&r, sizeof(magic));
	struct list *it;

	if (!head || memcmp(head, magic, sizeof(magic)))
		return error_set(err, EINVAL, "this is not a saved machine state of minivm");
	list_for_each(it, &reg->entries) list_entry(it, struct entry, link)->seen = false;
	uint32_t devices = (uint32_t)get_uint(&r, 4);
	for (uint32_t i = 0; i < devices; i++) {
		int ret = load_device(reg, &r, store, err);
		if (ret)
			return ret;
	}
	list_for_each(it, &reg->entries)
	{
		struct entry *e = list_entry(it, struct entry, link);
		if (!e->seen)
			return error_set(err, EINVAL,
					 "the saved state lacks device '%s.%d' of this machine; "
					 "start it with the options it was saved with",
					 e->desc->name, e->instance);
	}
	return 0;
}

static int post_load_all(struct state_registry *reg, struct error *err)
{
	struct list *it;

	list_for_each(it, &reg->entries)
	{
		struct entry *e = list_entry(it, struct entry, link);
		if (!e->desc->post_load)
			continue;
		unsigned version = e->desc->version ? e->desc->version : 1;
		int ret = e->desc->post_load(e->base, version, err);
		if (ret) {
			error_prefix(err, "device '%s.%d'", e->desc->name, e->instance);
			return ret;
		}
	}
	return 0;
}

int state_load(struct state_registry *reg, const void *data, size_t len, struct error *err)
{
	int ret = load_all(reg, data, len, false, err);
	if (ret)
		return ret;
	/* Ends requests and timers, and gives fields that an older file lacks their first value. */
	state_reset_all(reg);
	ret = load_all(reg, data, len, true, err);
	if (ret == 0)
		ret = post_load_all(reg, err);
	if (ret)
		state_reset_all(reg);
	return ret;
}
