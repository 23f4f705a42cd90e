/* SPDX-License-Identifier: MIT */
/*
 * Memory as instructions see it: logical address -> segment check -> linear -> TLB -> host memory.
 *
 * Each access has a fast path here, two compares long: the offset lies in the segment's window
 * (struct segment_window), and the page of the access's last byte is the one in the TLB entry of
 * its first byte (so an access that crosses a page misses). Everything else (limits at the edge,
 * page walks, page crossings, MMIO, pages with code, breakpoints, alignment checks) is in mem.c and
 * mmu.c. A miss costs a function call, never exactness.
 *
 * Included by cpu/internal.h.
 */
#ifndef CPU_MEM_H
#define CPU_MEM_H

#define PAGE_OFFSET UINT32_C(0xFFF)
#define PAGE_ADDR   UINT32_C(0xFFFFF000)

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

enum mem_type { MEM_READ, MEM_WRITE, MEM_EXEC };

static inline unsigned tlb_index(uint32_t linear)
{
	return linear >> 12 & (TLB_SIZE - 1);
}

/* Host address of a read or write of `len` <= 16 bytes, or NULL if the slow path must look. */
static inline uint8_t *fast_read(struct soft_cpu *c, unsigned seg, uint32_t off, unsigned len)
{
	const struct segment_window *w = &c->window[seg];
	uint32_t linear = w->base + off;
	const struct tlb_entry *e = &c->tlb->read[tlb_index(linear)];
	if (likely(off < w->read_end && e->tag == ((linear + len - 1) & PAGE_ADDR)))
		return (uint8_t *)(linear + e->delta);
	return NULL;
}

static inline uint8_t *fast_write(struct soft_cpu *c, unsigned seg, uint32_t off, unsigned len)
{
	const struct segment_window *w = &c->window[seg];
	uint32_t linear = w->base + off;
	const struct tlb_entry *e = &c->tlb->write[tlb_index(linear)];
	if (likely(off < w->write_end && e->tag == ((linear + len - 1) & PAGE_ADDR)))
		return (uint8_t *)(linear + e->delta);
	return NULL;
}

/* The slow paths, of any length up to 512 bytes. */
uint64_t mem_load_slow(struct soft_cpu *c, unsigned seg, uint32_t off, unsigned len);
void mem_store_slow(struct soft_cpu *c, unsigned seg, uint32_t off, uint64_t v, unsigned len);
uint64_t mem_rmw_slow(struct soft_cpu *c, unsigned seg, uint32_t off, unsigned len);
void mem_rmw_store_slow(struct soft_cpu *c, uint64_t v);

/*
 * Loads and stores through a segment: limit, type and null checks (#GP(0), #SS(0) for S_SS), paging
 * at the current CPL (#PF), alignment check (#AC) where enabled, data breakpoints. `off` is the
 * effective address, already cut to the address size.
 */
static inline uint8_t ld8(struct soft_cpu *c, unsigned seg, uint32_t off)
{
	const uint8_t *p = fast_read(c, seg, off, 1);
	return likely(p != NULL) ? *p : (uint8_t)mem_load_slow(c, seg, off, 1);
}
static inline uint16_t ld16(struct soft_cpu *c, unsigned seg, uint32_t off)
{
	const uint8_t *p = fast_read(c, seg, off, 2);
	return likely(p != NULL) ? load_le16(p) : (uint16_t)mem_load_slow(c, seg, off, 2);
}
static inline uint32_t ld32(struct soft_cpu *c, unsigned seg, uint32_t off)
{
	const uint8_t *p = fast_read(c, seg, off, 4);
	return likely(p != NULL) ? load_le32(p) : (uint32_t)mem_load_slow(c, seg, off, 4);
}
static inline uint64_t ld64(struct soft_cpu *c, unsigned seg, uint32_t off)
{
	const uint8_t *p = fast_read(c, seg, off, 8);
	return likely(p != NULL) ? load_le64(p) : mem_load_slow(c, seg, off, 8);
}
static inline void st8(struct soft_cpu *c, unsigned seg, uint32_t off, uint8_t v)
{
	uint8_t *p = fast_write(c, seg, off, 1);
	if (likely(p != NULL))
		*p = v;
	else
		mem_store_slow(c, seg, off, v, 1);
}
static inline void st16(struct soft_cpu *c, unsigned seg, uint32_t off, uint16_t v)
{
	uint8_t *p = fast_write(c, seg, off, 2);
	if (likely(p != NULL))
		store_le16(p, v);
	else
		mem_store_slow(c, seg, off, v, 2);
}
static inline void st32(struct soft_cpu *c, unsigned seg, uint32_t off, uint32_t v)
{
	uint8_t *p = fast_write(c, seg, off, 4);
	if (likely(p != NULL))
		store_le32(p, v);
	else
		mem_store_slow(c, seg, off, v, 4);
}
static inline void st64(struct soft_cpu *c, unsigned seg, uint32_t off, uint64_t v)
{
	uint8_t *p = fast_write(c, seg, off, 8);
	if (likely(p != NULL))
		store_le64(p, v);
	else
		mem_store_slow(c, seg, off, v, 8);
}
/* len <= 512: one segment check, may cross a page. A store that faults has written nothing. */
void ld_bytes(struct soft_cpu *c, unsigned seg, uint32_t off, void *buf, unsigned len);
void st_bytes(struct soft_cpu *c, unsigned seg, uint32_t off, const void *buf, unsigned len);
/* Raises what a store of `len` bytes would raise, without storing. */
void probe_write(struct soft_cpu *c, unsigned seg, uint32_t off, unsigned len);

/* Read for a read-modify-write (checks write permission first), then the write, which cannot fault.
 */
static inline uint64_t ld_rmw(struct soft_cpu *c, unsigned seg, uint32_t off, unsigned len)
{
	c->rmw_host = fast_write(c, seg, off, len);
	return likely(c->rmw_host != NULL) ? load_le(c->rmw_host, len)
					   : mem_rmw_slow(c, seg, off, len);
}
static inline void st_rmw(struct soft_cpu *c, uint64_t v, unsigned len)
{
	if (likely(c->rmw_host != NULL))
		store_le(c->rmw_host, v, len);
	else
		mem_rmw_store_slow(c, v);
}
static inline uint8_t ld8_rmw(struct soft_cpu *c, unsigned seg, uint32_t off)
{
	return (uint8_t)ld_rmw(c, seg, off, 1);
}
static inline uint16_t ld16_rmw(struct soft_cpu *c, unsigned seg, uint32_t off)
{
	return (uint16_t)ld_rmw(c, seg, off, 2);
}
static inline uint32_t ld32_rmw(struct soft_cpu *c, unsigned seg, uint32_t off)
{
	return (uint32_t)ld_rmw(c, seg, off, 4);
}
static inline uint64_t ld64_rmw(struct soft_cpu *c, unsigned seg, uint32_t off)
{
	return ld_rmw(c, seg, off, 8);
}
static inline void st8_rmw(struct soft_cpu *c, uint8_t v)
{
	st_rmw(c, v, 1);
}
static inline void st16_rmw(struct soft_cpu *c, uint16_t v)
{
	st_rmw(c, v, 2);
}
static inline void st32_rmw(struct soft_cpu *c, uint32_t v)
{
	st_rmw(c, v, 4);
}
static inline void st64_rmw(struct soft_cpu *c, uint64_t v)
{
	st_rmw(c, v, 8);
}

/* Linear accesses with supervisor rights, whatever the CPL: descriptor tables, TSS, interrupt
 * stacks. */
uint8_t sys_ld8(struct soft_cpu *c, uint32_t linear);
uint16_t sys_ld16(struct soft_cpu *c, uint32_t linear);
uint32_t sys_ld32(struct soft_cpu *c, uint32_t linear);
void sys_st8(struct soft_cpu *c, uint32_t linear, uint8_t v);
void sys_st16(struct soft_cpu *c, uint32_t linear, uint16_t v);
void sys_st32(struct soft_cpu *c, uint32_t linear, uint32_t v);
/* As probe_write() for linear supervisor accesses (task switches must fault before they change
 * anything). */
void sys_probe_write(struct soft_cpu *c, uint32_t linear, unsigned len);

/*
 * A run of memory for string instructions: the host address of the `len` bytes at `off`, where len
 * is cut to what lies in one page and in the segment, all plain RAM without anything to watch; NULL
 * if there is not one such byte. Never faults.
 */
uint8_t *mem_run(struct soft_cpu *c, unsigned seg, uint32_t off, uint32_t *len, enum mem_type type);

/* Effective address of the memory operand, cut to the address size. */
static inline uint32_t effective_address(const struct soft_cpu *c, const struct insn *i)
{
	return (c->gpr[i->base] + (c->gpr[i->index] << i->scale) + (uint32_t)i->disp) & i->ad_mask;
}

/* Stack of the current mode (SS, ESP or SP by SS.B). ESP changes only once the access succeeded. */
static inline void set_sp(struct soft_cpu *c, uint32_t sp)
{
	c->gpr[R_ESP] = (c->gpr[R_ESP] & ~c->sp_mask) | (sp & c->sp_mask);
}
static inline void push16(struct soft_cpu *c, uint16_t v)
{
	uint32_t sp = (c->gpr[R_ESP] - 2) & c->sp_mask;
	st16(c, S_SS, sp, v);
	set_sp(c, sp);
}
static inline void push32(struct soft_cpu *c, uint32_t v)
{
	uint32_t sp = (c->gpr[R_ESP] - 4) & c->sp_mask;
	st32(c, S_SS, sp, v);
	set_sp(c, sp);
}
static inline uint16_t pop16(struct soft_cpu *c)
{
	uint16_t v = ld16(c, S_SS, c->gpr[R_ESP] & c->sp_mask);
	set_sp(c, c->gpr[R_ESP] + 2);
	return v;
}
static inline uint32_t pop32(struct soft_cpu *c)
{
	uint32_t v = ld32(c, S_SS, c->gpr[R_ESP] & c->sp_mask);
	set_sp(c, c->gpr[R_ESP] + 4);
	return v;
}
/* By operand size. */
static inline void push_op(struct soft_cpu *c, bool op32, uint32_t v)
{
	if (op32)
		push32(c, v);
	else
		push16(c, (uint16_t)v);
}
static inline uint32_t pop_op(struct soft_cpu *c, bool op32)
{
	return op32 ? pop32(c) : pop16(c);
}

/* ---- mem.c and mmu.c among themselves ---- */
/*
 * The TLB entry for a page, walked and filled if need be; raises #PF. `user` chooses the rights and
 * the TLB. The entry may be slow (its flags say why) but is never invalid, and holds until the next
 * call.
 */
struct tlb_entry *mmu_entry(struct soft_cpu *c, uint32_t linear, enum mem_type type, bool user);
/* Whether an access with the supervisor's or the user's rights goes through the TLB without a
 * fault, and is filled in if so. */
bool mmu_can(struct soft_cpu *c, uint32_t linear, enum mem_type type, bool user);
/* No blocks are left on the page of RAM that `linear` was just written through: stores to it are
 * fast again. */
void mmu_page_without_code(struct soft_cpu *c, uint32_t linear, const uint8_t *host);
/* Page walk without side effects. False if not mapped. */
bool mmu_translate(struct soft_cpu *c, uint32_t linear, uint64_t *gpa);
/* Around accesses to the machine: the lock is taken, current_cpu is this one. */
void machine_enter(struct soft_cpu *c);
void machine_leave(struct soft_cpu *c);

#endif
