/* SPDX-License-Identifier: MIT */
/*
 * Guest-physical memory: regions, and where they are mapped.
 *
 * A region is something that can be addressed: RAM, ROM (host memory that guest writes do not
 * change) or MMIO (callbacks). A mapping places a window of a region at a guest-physical address,
 * for reads, for writes or for both, with a priority; where mappings overlap the higher priority
 * answers, reads and writes decided apart (this is what PAM shadowing needs: "reads go to ROM,
 * writes to RAM"). Mappings are moved, switched on and off while the guest runs (PCI BARs, PAM,
 * SMRAM). The result is a flat, sorted view; a lookup in it is a binary search.
 *
 * Guest-physical addresses are 64 bits wide: with PAE the guest's RAM may go past 4 GiB.
 *
 * Thread rules: everything that changes regions or mappings needs the machine lock and runs on a
 * vCPU thread, or while no vCPU runs (construction, reset, stopped). Lookups and accesses need the
 * machine lock, or run on the only vCPU thread. Host pointers to RAM and ROM stay valid until
 * memory_free().
 */
#ifndef CORE_MEMORY_H
#define CORE_MEMORY_H

#include "lib/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GUEST_PAGE_SIZE UINT64_C(4096)

enum mem_kind {
	MEM_RAM,
	MEM_ROM,
	MEM_MMIO,
};

/* `offset` is within the region; `size` is 1, 2, 4 (or 8 if the ops say so), never crosses its end.
 * The machine lock is held. */
struct mmio_ops {
	uint64_t (*read)(void *opaque, uint64_t offset, unsigned size);
	void (*write)(void *opaque, uint64_t offset, unsigned size, uint64_t value);
	unsigned max_size; /* larger accesses are split, low address first; 0 means 4 */
	unsigned min_size; /* smaller reads read this and extract; smaller writes are passed as they
			      are; 0 means 1 */
	bool coalesce; /* KVM may batch writes (writes have no immediate effect that the guest can
			  see) */
};

struct mem_region {
	const char *name;
	enum mem_kind kind;
	uint64_t size; /* bytes; RAM and ROM: a multiple of 4096 */
	uint8_t *host; /* RAM and ROM */
	int shared_fd; /* RAM after memory_share_ram(): a file of the same size that is mapped there;
			  otherwise -1 */
	const struct mmio_ops *ops; /* MMIO */
	void *opaque;
	bool log_dirty;  /* writes by vCPUs are recorded for mem_dirty_fetch() */
	uint64_t *dirty; /* bit per page while log_dirty */
};

enum mem_access {
	MEM_R = 1,
	MEM_W = 2,
	MEM_RW = 3,
};

struct mem_mapping; /* a placed region; owned by struct memory */
struct memory;

/* A piece of the flat view: guest-physical [start, end), one target for reads and one for writes
 * (NULL: nothing there, reads give all ones, writes are dropped). rd_offset and wr_offset are the
 * region offsets of `start`. */
struct mem_range {
	uint64_t start, end;
	struct mem_region *rd, *wr;
	uint64_t rd_offset, wr_offset;
};

/* Called after each change of the view and of dirty logging, lock held: the soft CPU drops its
 * TLBs, KVM updates its slots. */
struct mem_listener {
	void (*view_changed)(void *opaque);
	/* The dirty bits of a region are about to be collected, or a region with coalesced writes
	 * is read: add what the engine knows (KVM_GET_DIRTY_LOG), hand over writes it holds back.
	 * May be NULL. */
	void (*dirty_sync)(void *opaque, struct mem_region *region);
	/* The dirty bits of a region were cleared: the next write to each page must be seen again.
	 * May be NULL. */
	void (*dirty_cleared)(void *opaque, struct mem_region *region);
	void *opaque;
	struct mem_listener *next;
};

struct memory *memory_new(void);
void memory_free(struct memory *mem);
void memory_add_listener(struct memory *mem, struct mem_listener *listener);
void memory_remove_listener(struct memory *mem, struct mem_listener *listener);

/* Host memory is mmap'ed, page-aligned, zero, and committed only when touched; a size that the host
 * refuses is -ENOMEM. The region belongs to `mem`. `name` must stay valid. */
struct mem_region *mem_region_new_ram(struct memory *mem, const char *name, uint64_t size,
				      struct error *err);
struct mem_region *mem_region_new_rom(struct memory *mem, const char *name, uint64_t size,
				      struct error *err);
/*
 * Makes all RAM shared memory, so that an engine may map pages of it a second time: what there is
 * now, with its contents and at the same host addresses, and what is made later. Before any vCPU
 * runs. False if the host refuses; RAM stays as it was then.
 */
bool memory_share_ram(struct memory *mem);
struct mem_region *mem_region_new_mmio(struct memory *mem, const char *name, uint64_t size,
				       const struct mmio_ops *ops, void *opaque);
/* Starts or stops recording writes (display memory). */
void mem_region_log_dirty(struct memory *mem, struct mem_region *region, bool on);

/*
 * Places [offset, offset + size) of the region at `base`, not yet active (MEM_RW when enabled). All
 * page-aligned for RAM and ROM; MMIO may have any alignment. Mappings with equal priority: the
 * later one wins.
 */
struct mem_mapping *mem_map(struct memory *mem, struct mem_region *region, uint64_t offset,
			    uint64_t base, uint64_t size, int priority);
/* access is 0 (off) or a mix of MEM_R and MEM_W. */
void mem_mapping_set(struct mem_mapping *m, uint64_t base, unsigned access);
/* Removes a mapping for good. */
void mem_unmap(struct mem_mapping *m);
/* Several changes as one: the view is rebuilt and listeners are told once, at the outermost commit.
 */
void memory_begin(struct memory *mem);
void memory_commit(struct memory *mem);

/* Priorities used on the PC. */
enum {
	MEM_PRIO_RAM = 0,
	MEM_PRIO_ROM = 10, /* BIOS at 0xE0000 and below 4 GiB */
	MEM_PRIO_PCI = -5, /* BARs: the host bridge claims what is RAM or ROM first */
	MEM_PRIO_VGA = 20, /* legacy window 0xA0000 */
	MEM_PRIO_PAM = 30, /* shadow RAM switched by PAM registers */
	MEM_PRIO_SMRAM = 40,
	MEM_PRIO_APIC = 50,
};

/* The range that holds `gpa`; where nothing is mapped a range with rd = wr = NULL. Valid until the
 * view changes. */
const struct mem_range *memory_lookup(const struct memory *mem, uint64_t gpa);
/* The whole view, sorted, without the empty ranges; for the KVM engine and `info mtree`. */
const struct mem_range *memory_view(const struct memory *mem, size_t *count);

/*
 * Accesses by physical address, of any length, across ranges, to RAM and MMIO alike (the monitor,
 * DMA, MMIO exits). A device's DMA goes through these or through mem_dma_map(). Unmapped parts read
 * as 0xFF; writes there are dropped. Returns false if any byte was unmapped or, for a write, ROM.
 */
bool mem_read(struct memory *mem, uint64_t gpa, void *buf, size_t len);
bool mem_write(struct memory *mem, uint64_t gpa, const void *buf, size_t len);
/* Single accesses of 1, 2, 4 or 8 bytes that must not cross a range: what a vCPU's MMIO access
 * becomes. */
uint64_t mem_mmio_read(struct memory *mem, uint64_t gpa, unsigned size);
void mem_mmio_write(struct memory *mem, uint64_t gpa, unsigned size, uint64_t value);
/*
 * A host pointer to guest RAM at `gpa` for DMA; *len is cut to what is contiguous. NULL if there is
 * no RAM (a write also needs it to be writable). Pointers stay valid for the machine's life, so a
 * worker thread may use them. After writing, call mem_dma_wrote() (lock held) so that dirty logs
 * and translated code notice.
 */
void *mem_dma_map(struct memory *mem, uint64_t gpa, size_t *len, bool write);
void mem_dma_wrote(struct memory *mem, uint64_t gpa, size_t len);
/* Code the soft CPU has decoded from a page must be dropped when DMA or the monitor writes to it.
 * The soft engine sets this hook; mem_write() and mem_dma_wrote() call it, lock held, for the RAM
 * written (host pointer). */
void memory_set_write_hook(struct memory *mem,
			   void (*fn)(void *opaque, const uint8_t *host, size_t len), void *opaque);

/* Copies the dirty bits of [first_page, first_page + pages) into `bitmap` (bit 0 = first_page) and
 * clears them. Returns whether any was set. Any thread, lock held. */
bool mem_dirty_fetch(struct memory *mem, struct mem_region *region, uint64_t first_page,
		     uint64_t pages, uint64_t *bitmap);
/* Marks pages dirty: called by the engines and by devices that write display memory themselves.
 * Atomic, any thread. */
void mem_dirty_mark(struct mem_region *region, uint64_t offset, uint64_t len);

/* The A20 gate: the mask that is ANDed to each CPU physical address. Off clears bit 20. */
void memory_set_a20(struct memory *mem, bool on);
bool memory_a20(const struct memory *mem);

#endif
