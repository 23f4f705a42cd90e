/* SPDX-License-Identifier: MIT */
/*
 * PCI cards of -device: one table of types (pci_devices.c), and what all of them have in common:
 * addr=, bus=, id=, romfile=, rombar=, bootindex=. All functions need the machine lock.
 */
#ifndef VMM_PCI_DEVICES_H
#define VMM_PCI_DEVICES_H

#include "devices/pci.h"
#include "lib/error.h"
#include "lib/list.h"
#include "lib/optstr.h"

struct machine;

enum { PCI_UNITS_MAX = 32 }; /* as many as there are slots */

/* What a type's create() is given. */
struct pci_device_args {
	struct machine *machine;
	struct opts *opts;  /* the type reads its own properties here */
	const char *driver; /* as typed */
	const char *id;     /* or NULL */
	const char *name;   /* id or driver: for pci_device_init(), valid as long as the machine */
	int devfn;          /* for pci_device_init(); -1: a free slot */
};

struct pci_device_type {
	const char *driver;
	const char *alias;             /* another name, or NULL */
	const char *help;              /* "what it is: own properties", one line */
	const char *const *properties; /* its own keys, NULL-terminated */
	const char *romfile;           /* boot ROM where romfile= says nothing else, or NULL */
	const char *boot_child; /* what stands below it in a boot path ("disk@0,0") or NULL */
	/* Makes the device and puts it on the bus; *pci becomes its function. NULL with an error
	 * (-device and its argument are put in front). */
	void *(*create)(const struct pci_device_args *args, struct pci_device **pci,
			struct error *err);
	/* Takes it off the bus, too. */
	void (*free)(void *device);
};

/* A card of the machine; they are in m->pci_devices, in the order of their making. */
struct pci_unit {
	const struct pci_device_type *type;
	char *id; /* or NULL */
	char *name;
	int bootindex; /* -1: none given */
	void *device;
	struct pci_device *pci;
	struct list link;
};

/* The type of this name, or NULL; the name most like it, or NULL. */
const struct pci_device_type *pci_device_type_find(const char *driver);
const char *pci_device_type_near(const char *driver);
/* `-device DRIVER,help`; false if it is none of these cards. */
bool pci_device_print_properties(const char *driver);
/* Lines of `-device help`. */
void pci_devices_help(void);

/* Makes all cards among the -device options. */
int pci_devices_build(struct machine *m, struct error *err);
/* Makes one; `text` is as behind -device, `option` stands in front of messages
 * ("-device"); NULL: the caller puts its own there. */
struct pci_unit *pci_device_add(struct machine *m, const char *option, const char *text,
				struct error *err);
void pci_devices_free(struct machine *m);
/* The card with this id, or NULL. */
struct pci_unit *pci_device_by_id(struct machine *m, const char *id);

#endif
