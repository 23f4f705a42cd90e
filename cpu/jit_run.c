/* SPDX-License-Identifier: MIT */
/*
 * Running translated code: the run loop's way in, and what translated code calls out for.
 *
 * Translated code runs a stretch of at most STRETCH instructions, so that requests from other
 * threads are seen in time without a look at memory in every block. A callout goes straight on in
 * translated code wherever the run loop would have nothing else to do.
 */
#include "cpu/jit.h"
#include "cpu/ops.h"

enum { STRETCH = 8192 };

/* ---- Flags between the two forms ---- */

static void flags_from_host(struct soft_cpu *c)
{
	flags_set_arith(c, jit_flags_to_guest(c->jit.flags));
}

static void flags_to_host(struct soft_cpu *c)
{
	c->jit.flags = jit_flags_from_guest(flags_get(c));
}

/* ---- Finding code ---- */

static struct jit_code *find_code(const struct code_block *b, uint32_t eip, uint16_t mode)
{
	for (struct jit_code *code = b->jit; code; code = code->next)
		if (code->eip == eip && code->mode == mode)
			return code;
	return NULL;
}

/* Whether the block has run often enough to be worth translating. */
static bool is_warm(const struct soft_cpu *c, const struct code_block *b)
{
	unsigned after = c->config.jit_after ? c->config.jit_after - 1 : b->warm;

	return b->runs >= (after < BLOCK_NEVER ? after : BLOCK_NEVER - 1);
}

/* Whether nothing but running on is to be done. */
static bool may_go_on(const struct soft_cpu *c)
{
	uint32_t requests = atomic_load_explicit(&c->requests, memory_order_relaxed);

	if (!(c->eflags & FL_IF))
		requests &= ~(uint32_t)REQ_INTR;
	return !(requests | c->db_status | (c->eflags & (FL_TF | FL_RF)) | c->activity |
		 c->interrupt_shadow | c->watch_code) &&
	       c->tlb == c->page_tlb;
}

/* What translated code of that mode finds in registers of its own. */
static void set_registers(struct soft_cpu *c, uint16_t mode)
{
	c->jit.current = c->jit.tables[c->cpl == 3];
	c->jit.r12 = c->code->jit->modes[mode - 1].window ? jit_window_base(c) : JIT_SHIFT;
}

/* The translation at next_eip, made if the block is worth it. Flags must be in c->cc: the fetch may
 * fault. */
static struct jit_code *code_at_next_eip(struct soft_cpu *c)
{
	uint16_t mode = jit_mode_now(c);
	struct code_block *b;
	struct jit_code *code;

	if (!mode)
		return NULL;
	set_registers(c, mode);
	b = code_find(c, NULL, false);
	if (b == c->single)
		return NULL;
	code = find_code(b, c->next_eip, mode);
	if (code)
		return code;
	if (!is_warm(c, b) || b->runs == BLOCK_NEVER)
		return NULL;
	return jit_translate_block(c, b, mode);
}

/* The jump cache of the current privilege: what it has for next_eip, and a note for the next time.
 * The code looks itself whether its page is still mapped. */
static const uint8_t *look_up_jump(const struct soft_cpu *c, uint16_t mode)
{
	uint16_t index = (uint16_t)c->next_eip;

	if (((const uint64_t *)(c->jit.current + JIT_JUMP_TAG))[index] !=
	    -((uint64_t)c->next_eip + mode))
		return NULL;
	return ((const uint8_t **)(c->jit.current + JIT_JUMP_CODE))[index];
}

static void note_jump(struct soft_cpu *c, const struct jit_code *to)
{
	uint16_t index = (uint16_t)to->eip;

	((uint64_t *)(c->jit.current + JIT_JUMP_TAG))[index] = -((uint64_t)to->eip + to->mode);
	((const uint8_t **)(c->jit.current + JIT_JUMP_CODE))[index] = to->indirect;
}

/* Everything is ready to run translated code at `where`: tells the lock-step mode. */
static const uint8_t *start_at(struct soft_cpu *c, const struct jit_code *code, unsigned index,
			       uint32_t eip, const uint8_t *where)
{
	if (unlikely(c->jit.verify != NULL))
		jit_verify_begin(c, code, index, eip, where);
	return where;
}

/* Goes on at next_eip in translated code if that is all there is to do; `remapped`: not by the jump
 * cache, whose code found its page gone. */
static const uint8_t *go_on(struct soft_cpu *c, bool remapped)
{
	struct jit_code *code;
	uint16_t mode;

	if (c->jit.count >= 0 || !may_go_on(c))
		return NULL;
	mode = jit_mode_now(c);
	if (!mode)
		return NULL;
	set_registers(c, mode);
	const uint8_t *known = remapped ? NULL : look_up_jump(c, mode);
	if (known && !c->jit.verify) {
		flags_to_host(c);
		return known;
	}
	code = code_at_next_eip(c);
	if (!code)
		return NULL;
	note_jump(c, code);
	flags_to_host(c);
	return start_at(c, code, 0, code->eip, code->entry);
}

/* ---- Callouts ---- */

/* Faults that the window could not settle, before code goes back to the tables. */
enum { REDIRECTED_MAX = 40 };

/* The block is translated anew, for the tables. */
static void leave_window(struct soft_cpu *c, struct code_block *b)
{
	b->flat_only = true;
	jit_block_dropped(c->code, b);
}

static const uint8_t *interpret(struct soft_cpu *c, const struct jit_site *s)
{
	struct code_block *b = s->code->block;
	const struct insn *i = &b->insn[s->index];
	unsigned rest = b->count - (s->index + 1u);

	c->eip = s->eip;
	c->next_eip = s->eip + i->len;
	c->block = b;
	c->block_eip = s->code->eip;
	c->block_end = i + 1;
	jit_fpu_note(c, s);
	i->exec(c, i);
	c->block = NULL;
	bool leaves = s->code->redirected >= REDIRECTED_MAX && b->jit;
	if (unlikely(leaves))
		leave_window(c, b);
	if (rest) {
		if (c->block_end && !leaves && c->next_eip == s->eip + i->len &&
		    !(s->needs_fpu && !jit_fpu_may_load(c))) {
			c->jit.fpu_load = s->needs_fpu;
			flags_to_host(c);
			return start_at(c, s->code, s->index + 1u, s->eip + i->len, s->resume);
		}
		c->instructions -= rest;
		return NULL;
	}
	/* After STI nothing must be held back if nothing waits. */
	if (c->interrupt_shadow == SHADOW_STI && !c->requests)
		c->interrupt_shadow = SHADOW_NONE;
	return go_on(c, false);
}

static const uint8_t *follow_link(struct soft_cpu *c, const struct jit_site *s)
{
	struct jit_code *from = s->code, *to;
	uint64_t flushes = c->code->jit->stats.flushes;

	c->next_eip = s->eip;
	if (c->jit.count >= 0 || !may_go_on(c))
		return NULL;
	to = code_at_next_eip(c);
	if (!to)
		return NULL;
	if (flushes == c->code->jit->stats.flushes && !trace_on(TRACE_EXEC))
		jit_link(c->code->jit, from, s->index, to);
	flags_to_host(c);
	return start_at(c, to, 0, to->eip, to->entry);
}

static const uint8_t *follow_jump(struct soft_cpu *c, const struct jit_site *s)
{
	struct jit_code *from = s->code, *to;
	uint64_t flushes = c->code->jit->stats.flushes;

	c->next_eip = c->jit.arg;
	if (c->jit.count >= 0 || !may_go_on(c))
		return NULL;
	to = code_at_next_eip(c);
	if (!to)
		return NULL;
	note_jump(c, to);
	if (from->prediction && flushes == c->code->jit->stats.flushes)
		jit_predict(c->code->jit, from, to);
	flags_to_host(c);
	return start_at(c, to, 0, to->eip, to->entry);
}

const uint8_t *jit_callout(struct soft_cpu *c, const struct jit_site *s)
{
	c->jit.fpu_load = false;
	if (unlikely(c->jit.verify != NULL)) {
		const uint8_t *again = jit_verify_end(c, s);
		if (again)
			return again;
	}
	c->instructions = c->jit.origin + (uint64_t)c->jit.count;
	c->code->jit->stats.callouts[s->kind]++;
	flags_from_host(c);
	switch (s->kind) {
	case JIT_SITE_INTERPRET: return interpret(c, s);
	case JIT_SITE_LINK: return follow_link(c, s);
	case JIT_SITE_JUMP: return follow_jump(c, s);
	case JIT_SITE_FPU:
		if (jit_fpu_may_load(c)) {
			c->jit.fpu_load = true;
			return start_at(c, s->code, s->index, s->eip, s->resume);
		}
		return interpret(c, s);
	case JIT_SITE_REMAPPED: c->next_eip = s->eip; return go_on(c, true);
	default: c->next_eip = s->eip; return NULL;
	}
}

/* ---- From the run loop ---- */

bool jit_run(struct soft_cpu *c, struct code_block *b)
{
	struct jit_cache *jc = c->code->jit;
	struct jit_code *code;
	uint64_t stretch = c->budget_end - c->instructions;
	uint16_t mode;

	if (b == c->single || b->runs == BLOCK_NEVER || c->tlb != c->page_tlb)
		return false;
	jit_window_wanted(c);
	mode = jit_mode_now(c);
	if (!mode)
		return false;
	code = find_code(b, c->next_eip, mode);
	if (!code) {
		if (!is_warm(c, b)) {
			b->runs++;
			return false;
		}
		code = jit_translate_block(c, b, mode);
		if (!code) {
			if (b->runs == BLOCK_NEVER)
				return false;
			code_flush(c->code);
			return true;
		}
	}
	if (stretch > STRETCH)
		stretch = STRETCH;
	if (trace_on(TRACE_EXEC)) {
		/* The run loop traces each block: none may lead straight to another. */
		stretch = 1;
		if (jc->linked) {
			code_flush(c->code);
			return true;
		}
	}
	c->jit.count = -(int64_t)stretch;
	c->jit.origin = c->instructions + stretch;
	set_registers(c, mode);
	flags_to_host(c);
	jc->stats.enters++;
	jit_window_enter(c);
	jc->thunks.enter(c, start_at(c, code, 0, code->eip, code->entry));
	jit_window_leave();
	return true;
}
