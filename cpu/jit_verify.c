/* SPDX-License-Identifier: MIT */
/*
 * Lock-step mode (`-accel soft,verify=N`): translated code against the interpreter.
 *
 * Translated code is checked in pieces. A piece begins where C code is about to enter it, with the
 * guest's state at hand, and ends at the next callout: in between it touches nothing but registers
 * and RAM, because devices, faults, page walks and stores over code are callouts all. A piece is
 * kept short by letting R11 run out at the next block that looks.
 *
 * Before the piece, the interpreter rehearses it: it executes the same instructions with all stores
 * held back in a journal that its loads look into, notes the registers after each of them, and
 * stops before whatever it could not take back. Then the CPU's state is put back, translated code
 * runs, and at its callout, k instructions later, registers and the bytes stored must be those of
 * the rehearsal after k instructions. Memory is compared by lines of 64 bytes around each store, so
 * a store that is too wide is seen; one that goes astray altogether is not, unless somebody reads
 * it.
 *
 * Other threads write to RAM too (DMA). So what differs is put back and done again a few times, and
 * only what differs each time is a difference.
 *
 * Not compared are flags that the instructions leave undefined (jit_effect.c), and the x87's
 * pointers to its last instruction, which translated code brings up to date later. A rehearsal ends
 * before an instruction that reads such a flag.
 */
#include "cpu/fpu.h"
#include "cpu/jit.h"
#include "cpu/jit_effect.h"
#include "lib/strbuf.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum {
	STEPS_MAX = 192,
	LINES_MAX = 128,
	STORES_MAX = 512,
	FPU_STEPS_MAX = 64,
	LINE = 64,
	STORE_MAX = 16,
	RETRIES = 4,
};

/* A line of memory that the rehearsal stored to: as it was, and with the stores. */
struct line {
	uint8_t *host;
	uint32_t linear; /* for the report */
	uint8_t old[LINE], now[LINE];
};

struct store {
	uint16_t step, line;
	uint8_t offset, len;
	uint8_t bytes[STORE_MAX];
};

/* The state before an instruction. */
struct step {
	uint32_t gpr[8];
	uint32_t eip, flags, undefined;
	const struct insn *insn; /* NULL: the rehearsal ended here */
	uint16_t fpu;            /* index into fpus[] */
};

struct jit_verify {
	bool running; /* a piece is */
	uint64_t entries;

	/* Where the piece began. */
	const struct jit_code *code;
	const uint8_t *where;
	unsigned index;
	bool resumed, needs_fpu;
	int64_t position; /* R11 there, without what was counted ahead */
	int64_t shift;    /* added to R11 to make it short */
	unsigned tries;

	/* The rehearsal. */
	struct step step[STEPS_MAX + 1];
	unsigned steps, lines, stores, fpus;
	bool uses_fpu;
	struct line line[LINES_MAX];
	struct store store[STORES_MAX];
	struct fpu fpu[FPU_STEPS_MAX];
	uint8_t image[512]; /* soft_cpu.jit.fx before it, if uses_fpu */

	struct strbuf report;
};

/* ---- The journal: where stores go and loads look during a rehearsal ---- */

static _Noreturn void give_up(struct soft_cpu *c)
{
	longjmp(c->fault_env, 1);
}

static struct line *find_line(struct jit_verify *v, const uint8_t *host)
{
	for (unsigned n = v->lines; n-- > 0;)
		if (v->line[n].host == host)
			return &v->line[n];
	return NULL;
}

static uint8_t *line_of(const uint8_t *p)
{
	return (uint8_t *)((uintptr_t)p & ~(uintptr_t)(LINE - 1));
}

void jit_rehearse_load(struct soft_cpu *c, const struct access_piece *p, uint8_t *buf)
{
	struct jit_verify *v = c->jit.verify;

	if (!p->host || p->flags & TLB_WATCH)
		give_up(c);
	for (unsigned done = 0, n; done < p->len; done += n) {
		const uint8_t *at = p->host + done, *base = line_of(at);
		const struct line *l = find_line(v, base);
		n = (unsigned)(base + LINE - at);
		if (n > p->len - done)
			n = p->len - done;
		memcpy(buf + done, l ? l->now + (at - base) : at, n);
	}
}

void jit_rehearse_store(struct soft_cpu *c, const struct access_piece *p, const uint8_t *buf)
{
	struct jit_verify *v = c->jit.verify;

	if (!p->host || p->flags & (TLB_WATCH | TLB_CODE))
		give_up(c);
	for (unsigned done = 0, n; done < p->len; done += n) {
		uint8_t *at = p->host + done, *base = line_of(at);
		struct line *l = find_line(v, base);
		if (v->stores == STORES_MAX || (!l && v->lines == LINES_MAX))
			give_up(c);
		if (!l) {
			l = &v->line[v->lines++];
			l->host = base;
			l->linear = p->linear + done - (uint32_t)(at - base);
			memcpy(l->old, base, LINE);
			memcpy(l->now, base, LINE);
		}
		n = (unsigned)(base + LINE - at);
		if (n > p->len - done)
			n = p->len - done;
		if (n > STORE_MAX)
			n = STORE_MAX;
		struct store *s = &v->store[v->stores++];
		s->step = (uint16_t)v->steps;
		s->line = (uint16_t)(l - v->line);
		s->offset = (uint8_t)(at - base);
		s->len = (uint8_t)n;
		memcpy(s->bytes, buf + done, n);
		memcpy(l->now + s->offset, buf + done, n);
	}
}

void jit_rehearse_device(struct soft_cpu *c)
{
	give_up(c);
}

/* ---- Rehearsing ---- */

/* What a rehearsal changes of the CPU, beside what is noted in steps. */
struct kept {
	struct lazy_flags cc;
	struct fpu fpu;
	uint32_t gpr[8], eip, next_eip, eflags, cr2, db_status, requests;
	struct tlb *tlb;
	const struct insn *block_end;
	struct code_block *block;
	uint32_t block_eip;
	uint8_t fpu_place;
	bool fpu_load;
	uint32_t fpu_absent;
	bool ignne;
	uint8_t interrupt_shadow, fault_vector;
	bool fault_has_error, fault_is_trap;
	uint32_t fault_error;
	jmp_buf fault_env;
};

static void keep(struct soft_cpu *c, struct kept *k)
{
	k->cc = c->cc;
	k->fpu = c->fpu;
	memcpy(k->gpr, c->gpr, sizeof(k->gpr));
	k->eip = c->eip;
	k->next_eip = c->next_eip;
	k->eflags = c->eflags;
	k->cr2 = c->cr2;
	k->db_status = c->db_status;
	k->tlb = c->tlb;
	k->block_end = c->block_end;
	k->block = c->block;
	k->block_eip = c->block_eip;
	k->fpu_place = c->jit.fpu;
	k->fpu_load = c->jit.fpu_load;
	k->fpu_absent = c->jit.fpu_absent;
	k->ignne = c->ignne;
	k->interrupt_shadow = c->interrupt_shadow;
	k->fault_vector = c->fault_vector;
	k->fault_has_error = c->fault_has_error;
	k->fault_is_trap = c->fault_is_trap;
	k->fault_error = c->fault_error;
	memcpy(&k->fault_env, &c->fault_env, sizeof(k->fault_env));
}

static void put_back(struct soft_cpu *c, const struct kept *k)
{
	c->cc = k->cc;
	c->fpu = k->fpu;
	memcpy(c->gpr, k->gpr, sizeof(k->gpr));
	c->eip = k->eip;
	c->next_eip = k->next_eip;
	c->eflags = k->eflags;
	c->cr2 = k->cr2;
	c->db_status = k->db_status;
	c->tlb = k->tlb;
	c->block_end = k->block_end;
	c->block = k->block;
	c->block_eip = k->block_eip;
	c->jit.fpu = k->fpu_place;
	c->jit.fpu_load = k->fpu_load;
	c->jit.fpu_absent = k->fpu_absent;
	c->ignne = k->ignne;
	c->interrupt_shadow = k->interrupt_shadow;
	c->fault_vector = k->fault_vector;
	c->fault_has_error = k->fault_has_error;
	c->fault_is_trap = k->fault_is_trap;
	c->fault_error = k->fault_error;
	memcpy(&c->fault_env, &k->fault_env, sizeof(c->fault_env));
}

/* A TLB in which nothing is found: each access takes the path on which the journal lies. */
static struct tlb no_tlb;

/* Notes the state before the next instruction, of which `undefined` flags are. */
static void note_step(struct soft_cpu *c, struct jit_verify *v, uint32_t undefined)
{
	struct step *s = &v->step[v->steps];

	memcpy(s->gpr, c->gpr, sizeof(s->gpr));
	s->eip = c->next_eip;
	s->flags = flags_get(c) & FL_ARITH;
	s->undefined = undefined;
	s->insn = NULL;
	s->fpu = (uint16_t)(v->fpus - 1);
}

/* The translation that the end of `code` leads to without a look at R11. */
static const struct jit_code *runs_on_into(const struct jit_code *code, uint32_t eip)
{
	for (unsigned n = 0; n < ARRAY_SIZE(code->link); n++)
		if (code->link[n].unchecked && code->link[n].target &&
		    code->link[n].target->eip == eip)
			return code->link[n].target;
	return NULL;
}

/* Executes one instruction; false: the rehearsal ends before it. */
static bool rehearse_insn(struct soft_cpu *c, struct jit_verify *v, const struct insn *i)
{
	struct step *s = &v->step[v->steps];
	struct jit_effect e = jit_effect_of(c, i);
	bool fpu = jit_effect_on_fpu(i);

	if (e.reads & (s->undefined | JIT_NO_REHEARSAL) || v->steps == STEPS_MAX)
		return false;
	if (fpu && v->fpus == FPU_STEPS_MAX)
		return false;
	if (fpu && !v->uses_fpu) {
		jit_fpu_read(c, &v->fpu[0]);
		v->uses_fpu = true;
		memcpy(v->image, c->jit.fx, sizeof(v->image));
		c->fpu = v->fpu[0];
		c->jit.fpu = JIT_FPU_HOME;
	}
	s->insn = i;
	c->eip = c->next_eip;
	c->next_eip = c->eip + i->len;
	i->exec(c, i);
	v->steps++;
	if (fpu)
		jit_fpu_read(c, &v->fpu[v->fpus++]); /* FXRSTOR makes it an image */
	note_step(c, v, (s->undefined & ~e.defines) | e.undefines);
	return true;
}

static void rehearse(struct soft_cpu *c, struct jit_verify *v)
{
	const struct jit_code *code = v->code;
	unsigned index = v->index;

	while (code) {
		const struct code_block *b = code->block;

		c->block_end = b->insn + b->count;
		for (; index < b->count; index++)
			if (!rehearse_insn(c, v, &b->insn[index]) || !c->block_end)
				return;
		code = runs_on_into(code, c->next_eip);
		index = 0;
	}
}

static void rehearsal(struct soft_cpu *c, struct jit_verify *v, uint32_t eip)
{
	struct kept kept;

	if (!no_tlb.read[0].tag)
		for (unsigned n = 0; n < TLB_SIZE; n++)
			no_tlb.read[n].tag = no_tlb.write[n].tag = no_tlb.exec[n].tag = TLB_INVALID;
	keep(c, &kept);
	v->steps = v->lines = v->stores = 0;
	v->uses_fpu = false;
	v->fpus = 1; /* the first is the state before all */
	c->tlb = &no_tlb;
	c->next_eip = eip;
	flags_set_arith(c, jit_flags_to_guest(c->jit.flags));
	note_step(c, v, 0);
	c->jit.rehearsing = true;
	if (!setjmp(c->fault_env))
		rehearse(c, v);
	c->jit.rehearsing = false;
	put_back(c, &kept);
	if (v->uses_fpu)
		memcpy(c->jit.fx, v->image, sizeof(v->image));
}

void jit_verify_begin(struct soft_cpu *c, const struct jit_code *code, unsigned index, uint32_t eip,
		      const uint8_t *where)
{
	struct jit_verify *v = c->jit.verify;

	v->running = false;
	if (++v->entries % c->config.verify || c->tlb != c->page_tlb)
		return;
	v->code = code;
	v->index = index;
	v->where = where;
	v->resumed = where != code->entry;
	v->needs_fpu = c->jit.fpu_load;
	v->position = c->jit.count - (v->resumed ? (int)(code->block->count - index) : 0);
	v->tries = 0;
	rehearsal(c, v, eip);
	/* Until the next look at R11: the block's own instructions are counted when it is
	 * entered. */
	v->shift = (v->resumed ? 0 : -1) - c->jit.count;
	c->jit.count += v->shift;
	c->jit.origin -= (uint64_t)v->shift;
	v->running = true;
}

/* ---- Comparing ---- */

/* The registers, without the x87's pointers. */
static bool same_fpu(const struct fpu *a, const struct fpu *b)
{
	if (a->cw != b->cw || a->sw != b->sw || a->tag_valid != b->tag_valid ||
	    a->mxcsr != b->mxcsr || memcmp(a->xmm, b->xmm, sizeof(a->xmm)) != 0)
		return false;
	for (unsigned n = 0; n < ARRAY_SIZE(a->st); n++)
		if (memcmp(&a->st[n], &b->st[n], 10) != 0)
			return false;
	return true;
}

/* The line after the first `count` instructions. */
static void expected_line(const struct jit_verify *v, unsigned line, unsigned count,
			  uint8_t out[LINE])
{
	memcpy(out, v->line[line].old, LINE);
	for (unsigned n = 0; n < v->stores && v->store[n].step < count; n++)
		if (v->store[n].line == line)
			memcpy(out + v->store[n].offset, v->store[n].bytes, v->store[n].len);
}

static bool same_memory(const struct jit_verify *v, unsigned count)
{
	uint8_t want[LINE];

	for (unsigned n = 0; n < v->lines; n++) {
		expected_line(v, n, count, want);
		if (memcmp(want, v->line[n].host, LINE) != 0)
			return false;
	}
	return true;
}

static void print_memory(struct strbuf *out, const struct jit_verify *v, unsigned count)
{
	enum { LINES_SHOWN = 4 };
	unsigned shown = 0;
	uint8_t want[LINE];

	for (unsigned n = 0; n < v->lines && shown < LINES_SHOWN; n++) {
		const struct line *l = &v->line[n];
		unsigned at = 0;

		expected_line(v, n, count, want);
		while (at < LINE && want[at] == l->host[at])
			at++;
		if (at == LINE)
			continue;
		at &= ~15u;
		strbuf_printf(out, "* memory at %08x\n", l->linear + at);
		for (unsigned row = 0; row < 3; row++) {
			static const char *const what[] = {"before", "interpreter", "translator"};
			const uint8_t *p = row == 0 ? l->old : row == 1 ? want : l->host;
			strbuf_printf(out, "    %-11s", what[row]);
			for (unsigned k = 0; k < 16; k++)
				strbuf_printf(out, " %02x", p[at + k]);
			strbuf_puts(out, "\n");
		}
		shown++;
	}
}

static void print_fpu(struct strbuf *out, const char *name, const void *before, const void *want,
		      const void *got, unsigned size)
{
	const uint8_t *const row[] = {before, want, got};

	if (!memcmp(want, got, size))
		return;
	strbuf_printf(out, "* %-6s", name);
	for (unsigned k = 0; k < ARRAY_SIZE(row); k++) {
		strbuf_puts(out, k == 0 ? " " : k == 1 ? " -> " : " / ");
		for (unsigned n = size; n-- > 0;)
			strbuf_printf(out, "%02x", row[k][n]);
	}
	strbuf_puts(out, "\n");
}

static void print_fpus(struct strbuf *out, const struct fpu *before, const struct fpu *want,
		       const struct fpu *got)
{
	char name[8];

	print_fpu(out, "cw", &before->cw, &want->cw, &got->cw, sizeof(want->cw));
	print_fpu(out, "sw", &before->sw, &want->sw, &got->sw, sizeof(want->sw));
	print_fpu(out, "tags", &before->tag_valid, &want->tag_valid, &got->tag_valid, 1);
	print_fpu(out, "mxcsr", &before->mxcsr, &want->mxcsr, &got->mxcsr, sizeof(want->mxcsr));
	for (unsigned n = 0; n < 8; n++) {
		snprintf(name, sizeof(name), "r%u", n);
		print_fpu(out, name, &before->st[n], &want->st[n], &got->st[n], 10);
	}
	for (unsigned n = 0; n < 8; n++) {
		snprintf(name, sizeof(name), "xmm%u", n);
		print_fpu(out, name, before->xmm[n], want->xmm[n], got->xmm[n], 16);
	}
}

static void print_code(struct soft_cpu *c, struct strbuf *out, const struct jit_verify *v,
		       unsigned count)
{
	for (unsigned n = 0; n < count; n++) {
		const struct step *s = &v->step[n];
		uint32_t linear = c->seg[S_CS].base + s->eip;

		strbuf_printf(out, "  %08x:", s->eip);
		for (unsigned k = 0; k < s->insn->len; k++) {
			const struct tlb_entry *e = &c->page_tlb->exec[tlb_index(linear + k)];
			if ((e->tag & PAGE_ADDR) == ((linear + k) & PAGE_ADDR) &&
			    !(e->tag & TLB_INVALID) && !(e->flags & TLB_MMIO))
				strbuf_printf(out, " %02x",
					      *(const uint8_t *)(linear + k + e->delta));
			else
				strbuf_puts(out, " ??");
		}
		strbuf_puts(out, "\n");
	}
}

/* What the engine shows. */
static void describe(struct soft_cpu *c, struct jit_verify *v, unsigned count, uint32_t eip,
		     const struct fpu *fpu)
{
	static const char *const names[] = {"eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"};
	const struct step *before = &v->step[0], *want = &v->step[count];
	struct strbuf *out = &v->report;
	uint32_t flags = jit_flags_to_guest(c->jit.flags);

	strbuf_printf(out,
		      "cpu%u: translated code differs from the interpreter, within %u instructions "
		      "at %04x:%08x (%u-bit, cpl %u), translated at %p\n",
		      c->config.index, count, c->seg[S_CS].selector, before->eip,
		      c->code32 ? 32 : 16, c->cpl, (const void *)v->where);
	strbuf_puts(out, "register: before -> interpreter / translator where they differ\n");
	for (unsigned n = 0; n < 8; n++) {
		bool differs = want->gpr[n] != c->gpr[n];
		strbuf_printf(out, "%c %s %08x -> %08x", differs ? '*' : ' ', names[n],
			      before->gpr[n], want->gpr[n]);
		strbuf_printf(out, differs ? " / %08x\n" : "\n", c->gpr[n]);
	}
	bool other_flags = (flags ^ want->flags) & ~want->undefined;
	strbuf_printf(out, "%c flags %03x -> %03x / %03x (undefined: %03x)\n",
		      other_flags ? '*' : ' ', before->flags, want->flags, flags, want->undefined);
	strbuf_printf(out, "%c eip %08x -> %08x / %08x\n", eip != want->eip ? '*' : ' ',
		      before->eip, want->eip, eip);
	if (v->uses_fpu)
		print_fpus(out, &v->fpu[0], &v->fpu[want->fpu], fpu);
	print_memory(out, v, count);
	strbuf_puts(out, "instructions:\n");
	print_code(c, out, v, count);
}

/* Puts the guest back to where the piece began. */
static void undo(struct soft_cpu *c, struct jit_verify *v)
{
	const struct step *s = &v->step[0];

	for (unsigned n = 0; n < v->lines; n++)
		memcpy(v->line[n].host, v->line[n].old, LINE);
	memcpy(c->gpr, s->gpr, sizeof(s->gpr));
	c->jit.flags = jit_flags_from_guest(s->flags);
	if (v->uses_fpu) {
		jit_fpu_home(c);
		c->fpu = v->fpu[0];
	}
	c->jit.fpu_load = false;
	if (v->needs_fpu)
		c->jit.fpu_load = jit_fpu_may_load(c);
}

const uint8_t *jit_verify_end(struct soft_cpu *c, const struct jit_site *site)
{
	struct jit_verify *v = c->jit.verify;
	struct jit_stats *stats = &c->code->jit->stats;
	bool inside = site->kind == JIT_SITE_INTERPRET || site->kind == JIT_SITE_FPU;
	uint32_t eip = site->kind == JIT_SITE_JUMP ? c->jit.arg : site->eip;
	struct fpu fpu;

	if (!v->running)
		return NULL;
	v->running = false;
	c->jit.count -= v->shift;
	c->jit.origin += (uint64_t)v->shift;
	int64_t position =
		c->jit.count - (inside ? (int)(site->code->block->count - site->index) : 0);
	uint64_t count = (uint64_t)(position - v->position);
	if (count > v->steps) {
		stats->unverified++;
		return NULL;
	}
	const struct step *want = &v->step[count];
	if (v->uses_fpu)
		jit_fpu_read(c, &fpu);
	if (!memcmp(want->gpr, c->gpr, sizeof(want->gpr)) && want->eip == eip &&
	    !((want->flags ^ jit_flags_to_guest(c->jit.flags)) & ~want->undefined) &&
	    (!v->uses_fpu || same_fpu(&v->fpu[want->fpu], &fpu)) &&
	    same_memory(v, (unsigned)count)) {
		stats->verified++;
		return NULL;
	}
	if (v->tries < RETRIES) {
		const struct jit_code *code = v->code;
		unsigned index = v->index, tries = v->tries;
		const uint8_t *where = v->where;
		uint32_t start = v->step[0].eip;

		undo(c, v);
		c->jit.count = v->position + (v->resumed ? (int)(code->block->count - index) : 0);
		v->entries--; /* the same one again */
		jit_verify_begin(c, code, index, start, where);
		v->tries = tries + 1;
		return where;
	}
	describe(c, v, (unsigned)count, eip, &fpu);
	atomic_fetch_or(&c->requests, REQ_DIFFERS);
	return NULL;
}

/* ---- Life ---- */

int jit_verify_new(struct soft_cpu *c, struct error *err)
{
	struct jit_verify *v = calloc(1, sizeof(*v));

	if (!v)
		return error_set(err, ENOMEM, "no memory for the translator's verification");
	v->report = (struct strbuf)STRBUF_INIT;
	c->jit.verify = v;
	return 0;
}

void jit_verify_free(struct soft_cpu *c)
{
	if (!c->jit.verify)
		return;
	strbuf_free(&c->jit.verify->report);
	free(c->jit.verify);
	c->jit.verify = NULL;
}

const char *soft_cpu_difference(const struct soft_cpu *c)
{
	return c->jit.verify ? strbuf_str(&c->jit.verify->report) : "";
}
