/* SPDX-License-Identifier: MIT */
/*
 * The slow paths of memory accesses: everything that the inline functions of mem.h do not settle.
 *
 * An access is first prepared (segment check, alignment check, translation of its one or two pages)
 * and then carried out, so whatever can fault has faulted before the first byte moves.
 */
#include "core/current_cpu.h"
#include "core/memory.h"
#include "cpu/jit.h"

void machine_enter(struct soft_cpu *c)
{
	if (unlikely(c->jit.rehearsing))
		jit_rehearse_device(c);
	if (c->config.lock)
		c->config.lock(c->config.opaque);
	current_cpu = (int)c->config.index;
}

void machine_leave(struct soft_cpu *c)
{
	current_cpu = -1;
	if (c->config.unlock)
		c->config.unlock(c->config.opaque);
	/* The device may have moved memory or written to it: that is to be seen by the next
	 * instruction. */
	if (c->requests)
		cpu_end_block(c);
}

/* ---- Segments (SDM vol. 3A, 5.3 and 5.5) ---- */

static _Noreturn void segment_fault(struct soft_cpu *c, unsigned seg)
{
	cpu_raise_error(c, seg == S_SS ? EXC_SS : EXC_GP, 0);
}

static bool type_allows(const struct cpu_segment *s, bool write)
{
	if (!(s->attr & SEG_P) || !(s->attr & SEG_S))
		return false;
	if (s->attr & SEG_CODE)
		return !write && s->attr & SEG_RW;
	return !write || s->attr & SEG_RW;
}

static bool is_expand_down(const struct cpu_segment *s)
{
	return (s->attr & (SEG_S | SEG_CODE | SEG_CE)) == (SEG_S | SEG_CE);
}

void segment_changed(struct soft_cpu *c, unsigned sreg)
{
	enum { LARGEST = 16 };
	const struct cpu_segment *s = &c->seg[sreg];
	struct segment_window *w = &c->window[sreg];
	/* Accesses of up to LARGEST bytes at offsets below `end` stay within the limit. */
	uint32_t end = s->limit >= LARGEST - 1 ? s->limit - (LARGEST - 2) : 0;

	w->base = s->base;
	if (c->protected_mode) {
		w->read_end = type_allows(s, false) && !is_expand_down(s) ? end : 0;
		w->write_end = type_allows(s, true) && !is_expand_down(s) ? end : 0;
	} else {
		w->read_end = w->write_end = end;
	}
	jit_segment_changed(c, sreg);
}

/* Linear address of an access, or a fault. */
static uint32_t check_segment(struct soft_cpu *c, unsigned seg, uint32_t off, unsigned len,
			      bool write)
{
	const struct cpu_segment *s = &c->seg[seg];
	uint32_t last = off + (len - 1);

	if (c->protected_mode && !type_allows(s, write))
		segment_fault(c, seg);
	if (last < off)
		segment_fault(c, seg);
	if (c->protected_mode && is_expand_down(s)) {
		uint32_t top = s->attr & SEG_DB ? 0xFFFFFFFF : 0xFFFF;
		if (off <= s->limit || last > top)
			segment_fault(c, seg);
	} else if (last > s->limit) {
		segment_fault(c, seg);
	}
	return s->base + off;
}

/*
 * #AC (SDM vol. 3A, table 6-7): what is checked by the length of the access. 16 bytes and more are
 * SSE operands, whose own instructions check them where they must be aligned.
 */
static unsigned required_alignment(unsigned len)
{
	switch (len) {
	case 2:
	case 14: /* FSTENV, FSAVE with 16-bit operand size */
	case 94: return 2;
	case 4:
	case 28: /* and with 32-bit operand size */
	case 108: return 4;
	case 8:
	case 10: return 8;
	default: return 1;
	}
}

static void check_alignment(struct soft_cpu *c, uint32_t linear, unsigned len)
{
	if (c->tlb != c->page_tlb && !c->jit.rehearsing && linear & (required_alignment(len) - 1))
		cpu_raise_error(c, EXC_AC, 0);
}

/* ---- Preparing ---- */

static void prepare(struct soft_cpu *c, struct cpu_access *a, uint32_t linear, unsigned len,
		    enum mem_type type, bool user)
{
	bool watched = false;
	uint32_t at = linear;
	unsigned left = len;

	a->pieces = 0;
	while (left) {
		const struct tlb_entry *e = mmu_entry(c, at, type, user);
		struct access_piece *p = &a->piece[a->pieces++];
		unsigned room = (unsigned)(GUEST_PAGE_SIZE - (at & PAGE_OFFSET));

		p->len = (uint16_t)(left < room ? left : room);
		p->linear = at;
		p->flags = (uint16_t)e->flags;
		p->host = e->flags & TLB_MMIO ? NULL : (uint8_t *)(at + e->delta);
		p->gpa = at + e->delta;
		watched |= e->flags & TLB_WATCH;
		at += p->len;
		left -= p->len;
	}
	if (watched)
		debug_data_access(c, linear, len, type == MEM_WRITE);
}

static void prepare_segment(struct soft_cpu *c, struct cpu_access *a, unsigned seg, uint32_t off,
			    unsigned len, enum mem_type type)
{
	uint32_t linear = check_segment(c, seg, off, len, type == MEM_WRITE);

	check_alignment(c, linear, len);
	prepare(c, a, linear, len, type, c->cpl == 3);
}

/* ---- Carrying out ---- */

/* The largest naturally aligned access that starts at gpa. */
static unsigned mmio_size(uint64_t gpa, unsigned left)
{
	unsigned size = 8;

	while (size > left || gpa & (size - 1))
		size >>= 1;
	return size;
}

static void piece_read(struct soft_cpu *c, const struct access_piece *p, uint8_t *buf)
{
	if (unlikely(c->jit.rehearsing)) {
		jit_rehearse_load(c, p, buf);
		return;
	}
	if (p->host) {
		memcpy(buf, p->host, p->len);
		return;
	}
	machine_enter(c);
	for (unsigned done = 0, size; done < p->len; done += size) {
		size = mmio_size(p->gpa + done, p->len - done);
		store_le(buf + done, mem_mmio_read(c->config.mem, p->gpa + done, size), size);
	}
	machine_leave(c);
}

static void piece_write(struct soft_cpu *c, const struct access_piece *p, const uint8_t *buf)
{
	if (unlikely(c->jit.rehearsing)) {
		jit_rehearse_store(c, p, buf);
		return;
	}
	if (p->host) {
		/* In one move where the size allows it: another thread may look. */
		if (p->len == 4)
			store_le32(p->host, load_le32(buf));
		else if (p->len == 2)
			store_le16(p->host, load_le16(buf));
		else
			memcpy(p->host, buf, p->len);
		if (p->flags & TLB_CODE && !code_written(c, p->host, p->len))
			mmu_page_without_code(c, p->linear, p->host);
		return;
	}
	machine_enter(c);
	for (unsigned done = 0, size; done < p->len; done += size) {
		size = mmio_size(p->gpa + done, p->len - done);
		mem_mmio_write(c->config.mem, p->gpa + done, size, load_le(buf + done, size));
	}
	machine_leave(c);
}

static void access_read(struct soft_cpu *c, const struct cpu_access *a, void *buf)
{
	uint8_t *at = buf;

	for (unsigned n = 0; n < a->pieces; n++) {
		piece_read(c, &a->piece[n], at);
		at += a->piece[n].len;
	}
}

static void access_write(struct soft_cpu *c, const struct cpu_access *a, const void *buf)
{
	const uint8_t *at = buf;

	for (unsigned n = 0; n < a->pieces; n++) {
		piece_write(c, &a->piece[n], at);
		at += a->piece[n].len;
	}
}

uint64_t mem_load_slow(struct soft_cpu *c, unsigned seg, uint32_t off, unsigned len)
{
	struct cpu_access a;
	uint64_t v = 0;

	prepare_segment(c, &a, seg, off, len, MEM_READ);
	access_read(c, &a, &v);
	return v;
}

void mem_store_slow(struct soft_cpu *c, unsigned seg, uint32_t off, uint64_t v, unsigned len)
{
	struct cpu_access a;

	prepare_segment(c, &a, seg, off, len, MEM_WRITE);
	access_write(c, &a, &v);
}

uint64_t mem_rmw_slow(struct soft_cpu *c, unsigned seg, uint32_t off, unsigned len)
{
	uint64_t v = 0;

	prepare_segment(c, &c->rmw, seg, off, len, MEM_WRITE);
	access_read(c, &c->rmw, &v);
	return v;
}

void mem_rmw_store_slow(struct soft_cpu *c, uint64_t v)
{
	access_write(c, &c->rmw, &v);
}

void ld_bytes(struct soft_cpu *c, unsigned seg, uint32_t off, void *buf, unsigned len)
{
	struct cpu_access a;

	prepare_segment(c, &a, seg, off, len, MEM_READ);
	access_read(c, &a, buf);
}

void st_bytes(struct soft_cpu *c, unsigned seg, uint32_t off, const void *buf, unsigned len)
{
	struct cpu_access a;

	prepare_segment(c, &a, seg, off, len, MEM_WRITE);
	access_write(c, &a, buf);
}

void probe_write(struct soft_cpu *c, unsigned seg, uint32_t off, unsigned len)
{
	if (len <= 16 && fast_write(c, seg, off, len))
		return;

	uint32_t linear = check_segment(c, seg, off, len, true);
	check_alignment(c, linear, len);
	mmu_entry(c, linear, MEM_WRITE, c->cpl == 3);
	if ((linear & PAGE_OFFSET) + len > GUEST_PAGE_SIZE)
		mmu_entry(c, (linear + len - 1) & PAGE_ADDR, MEM_WRITE, c->cpl == 3);
}

/* ---- Linear accesses with supervisor rights ---- */

static uint64_t sys_load(struct soft_cpu *c, uint32_t linear, unsigned len)
{
	const struct tlb_entry *e = &c->tlbs[0].read[tlb_index(linear)];
	struct cpu_access a;
	uint64_t v = 0;

	if (likely(e->tag == ((linear + len - 1) & PAGE_ADDR)))
		return load_le((const void *)(linear + e->delta), len);
	prepare(c, &a, linear, len, MEM_READ, false);
	access_read(c, &a, &v);
	return v;
}

static void sys_store(struct soft_cpu *c, uint32_t linear, uint64_t v, unsigned len)
{
	const struct tlb_entry *e = &c->tlbs[0].write[tlb_index(linear)];
	struct cpu_access a;

	if (likely(e->tag == ((linear + len - 1) & PAGE_ADDR))) {
		store_le((void *)(linear + e->delta), v, len);
		return;
	}
	prepare(c, &a, linear, len, MEM_WRITE, false);
	access_write(c, &a, &v);
}

uint8_t sys_ld8(struct soft_cpu *c, uint32_t linear)
{
	return (uint8_t)sys_load(c, linear, 1);
}
uint16_t sys_ld16(struct soft_cpu *c, uint32_t linear)
{
	return (uint16_t)sys_load(c, linear, 2);
}
uint32_t sys_ld32(struct soft_cpu *c, uint32_t linear)
{
	return (uint32_t)sys_load(c, linear, 4);
}
void sys_st8(struct soft_cpu *c, uint32_t linear, uint8_t v)
{
	sys_store(c, linear, v, 1);
}
void sys_st16(struct soft_cpu *c, uint32_t linear, uint16_t v)
{
	sys_store(c, linear, v, 2);
}
void sys_st32(struct soft_cpu *c, uint32_t linear, uint32_t v)
{
	sys_store(c, linear, v, 4);
}

void sys_probe_write(struct soft_cpu *c, uint32_t linear, unsigned len)
{
	mmu_entry(c, linear, MEM_WRITE, false);
	if ((linear & PAGE_OFFSET) + len > GUEST_PAGE_SIZE)
		mmu_entry(c, linear + len - 1, MEM_WRITE, false);
}

/* ---- Runs for string instructions ---- */

uint8_t *mem_run(struct soft_cpu *c, unsigned seg, uint32_t off, uint32_t *len, enum mem_type type)
{
	const struct segment_window *w = &c->window[seg];
	uint32_t end = type == MEM_READ ? w->read_end : w->write_end, linear = w->base + off;
	uint32_t room = (uint32_t)GUEST_PAGE_SIZE - (linear & PAGE_OFFSET);
	const struct tlb_entry *table = type == MEM_READ ? c->tlb->read : c->tlb->write;
	const struct tlb_entry *e = &table[tlb_index(linear)];

	if (off >= end)
		return NULL;
	if (e->tag != (linear & PAGE_ADDR)) {
		if (c->tlb != c->page_tlb || !mmu_can(c, linear, type, c->cpl == 3) ||
		    e->tag != (linear & PAGE_ADDR))
			return NULL;
	}
	if (room > end - off)
		room = end - off;
	if (*len > room)
		*len = room;
	return (uint8_t *)(linear + e->delta);
}
