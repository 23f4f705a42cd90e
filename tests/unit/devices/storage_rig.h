/* SPDX-License-Identifier: MIT */
/* A machine without CPU for tests of PCI and storage devices: buses, clock, 4 MiB of RAM, PCI bus,
 * temporary images, and the port accesses a guest would make. */
#ifndef TESTS_UNIT_DEVICES_STORAGE_RIG_H
#define TESTS_UNIT_DEVICES_STORAGE_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above first */
#include <cmocka.h>

#include "block/drive.h"
#include "core/device.h"
#include "core/iobus.h"
#include "core/irq.h"
#include "core/memory.h"
#include "core/state.h"
#include "devices/pci.h"
#include "lib/bytes.h"
#include "lib/clock.h"
#include "lib/loop.h"
#include "lib/text.h"
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum { RIG_RAM = 4 * 1024 * 1024, RIG_IRQS = 16 };

struct rig {
	struct device_env env;
	struct machine_requests requests;
	struct mem_region *ram;
	struct mem_mapping *ram_mapping;
	struct pci_bus *pci;
	bool irq[RIG_IRQS];
	unsigned edges[RIG_IRQS]; /* how often each went up */
	unsigned resets, shutdowns;
};

static inline void rig_set_irq(void *opaque, int n, bool level)
{
	struct rig *r = opaque;
	if (level && !r->irq[n])
		r->edges[n]++;
	r->irq[n] = level;
}

static inline struct irq_line rig_line(struct rig *r, int n)
{
	return (struct irq_line){.set = rig_set_irq, .opaque = r, .n = n};
}

static inline void rig_reset_asked(void *opaque)
{
	((struct rig *)opaque)->resets++;
}

static inline void rig_shutdown_asked(void *opaque)
{
	((struct rig *)opaque)->shutdowns++;
}

/* RAM is mapped at 0 unless the test brings a host bridge. */
static inline struct rig *rig_new(bool map_ram)
{
	struct rig *r = xcalloc(1, sizeof(*r));
	struct error err = ERROR_INIT;

	r->requests = (struct machine_requests){
		.reset = rig_reset_asked, .shutdown = rig_shutdown_asked, .opaque = r};
	r->env.loop = loop_new(&err);
	assert_non_null(r->env.loop);
	r->env.clock = clock_new(r->env.loop);
	r->env.mem = memory_new();
	r->env.io = iobus_new();
	r->env.states = state_registry_new();
	r->env.requests = &r->requests;
	loop_lock(r->env.loop);
	clock_start(r->env.clock);
	r->ram = mem_region_new_ram(r->env.mem, "ram", RIG_RAM, &err);
	assert_non_null(r->ram);
	if (map_ram) {
		r->ram_mapping = mem_map(r->env.mem, r->ram, 0, 0, RIG_RAM, MEM_PRIO_RAM);
		mem_mapping_set(r->ram_mapping, 0, MEM_RW);
	}
	r->pci = pci_bus_new(&r->env);
	return r;
}

/* The lock is held all the time except in rig_turn(). */
static inline void rig_turn(struct rig *r)
{
	loop_unlock(r->env.loop);
	loop_run_once(r->env.loop, 10 * 1000 * 1000);
	loop_lock(r->env.loop);
}

static inline void rig_free(struct rig *r)
{
	pci_bus_free(r->pci);
	mem_unmap(r->ram_mapping);
	loop_unlock(r->env.loop);
	state_registry_free(r->env.states);
	iobus_free(r->env.io);
	memory_free(r->env.mem);
	clock_free(r->env.clock);
	loop_free(r->env.loop);
	free(r);
}

static inline uint32_t in(struct rig *r, uint16_t port, unsigned size)
{
	return iobus_read(r->env.io, port, size);
}

static inline void out(struct rig *r, uint16_t port, unsigned size, uint32_t value)
{
	iobus_write(r->env.io, port, size, value);
}

static inline uint8_t inb(struct rig *r, uint16_t port)
{
	return (uint8_t)in(r, port, 1);
}

static inline void outb(struct rig *r, uint16_t port, uint8_t value)
{
	out(r, port, 1, value);
}

/* Configuration accesses through 0xCF8. */
static inline uint32_t config_in(struct rig *r, unsigned devfn, unsigned reg, unsigned size)
{
	out(r, 0xCF8, 4, 0x80000000u | devfn << 8 | (reg & 0xFC));
	return in(r, (uint16_t)(0xCFC + (reg & 3)), size);
}

static inline void config_out(struct rig *r, unsigned devfn, unsigned reg, unsigned size,
			      uint32_t value)
{
	out(r, 0xCF8, 4, 0x80000000u | devfn << 8 | (reg & 0xFC));
	out(r, (uint16_t)(0xCFC + (reg & 3)), size, value);
}

/* A raw image of `size` bytes; byte i of each 512-byte sector n is n * 7 + i. */
static inline char *rig_image(uint64_t size)
{
	char *path = xstrdup("/tmp/minivm-test-XXXXXX");
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	for (uint64_t n = 0; n < size / 512 && n < 8192; n++) {
		uint8_t sector[512];
		for (unsigned i = 0; i < 512; i++)
			sector[i] = (uint8_t)(n * 7 + i);
		assert_int_equal(pwrite_full(fd, sector, 512, n * 512), 0);
	}
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	close(fd);
	return path;
}

static inline bool rig_is_sector(const uint8_t *p, uint64_t n)
{
	for (unsigned i = 0; i < 512; i++)
		if (p[i] != (uint8_t)(n * 7 + i))
			return false;
	return true;
}

static inline void rig_image_read(const char *path, void *buf, size_t len, uint64_t offset)
{
	int fd = open(path, O_RDONLY);
	assert_true(fd >= 0);
	assert_int_equal(pread_full(fd, buf, len, offset), 0);
	close(fd);
}

static inline struct drive *rig_drive(struct rig *r, enum drive_kind kind, const char *file,
				      unsigned flags)
{
	struct error err = ERROR_INIT;
	struct drive_config config = {.id = "test",
				      .kind = kind,
				      .file = file,
				      .format = file ? "raw" : NULL,
				      .image_flags = flags | IMAGE_NO_LOCK};
	struct drive *d = drive_new(r->env.loop, &config, &err);
	if (!d)
		print_error("%s\n", err.text);
	assert_non_null(d);
	return d;
}

#endif
