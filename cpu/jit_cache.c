/* SPDX-License-Identifier: MIT */
/*
 * Code memory, and the life of translations.
 *
 * The memory is mapped twice, writable and executable, so that no mapping is both. The straight
 * lines grow from its start, the stubs from a point within; when either part is full, everything is
 * forgotten together with the decoded blocks (code_flush()), which is rare and simple. A block that
 * is dropped takes its translations along: the jumps that lead to them go back to their stubs, and
 * the jump caches forget them. Their bytes stay as they are until the next flush, so the one that
 * is running may return.
 */
#include "core/memory.h"
#include "cpu/jit.h"
#include "cpu/ops.h"
#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { CODE_ALIGN = 16 };

/* ---- Life ---- */

bool soft_cpu_can_translate(void)
{
	enum { LEAF = 7, BMI2 = 1 << 8 };
	unsigned eax, ebx, ecx, edx;

	return __get_cpuid_count(LEAF, 0, &eax, &ebx, &ecx, &edx) && ebx & BMI2;
}

static void reset_emitters(struct jit_cache *jc)
{
	jc->hot.at = jc->hot_start;
	jc->cold.at = jc->cold_start;
	jc->hot.full = jc->cold.full = false;
}

struct jit_cache *jit_cache_new(size_t size, struct error *err)
{
	struct jit_cache *jc;
	int fd;

	if (!soft_cpu_can_translate()) {
		error_set(err, ENOTSUP, "the host's CPU has no BMI2, which translated code uses");
		return NULL;
	}
	jc = calloc(1, sizeof(*jc));
	fd = memfd_create("minivm-code", MFD_CLOEXEC);
	if (!jc || fd < 0 || ftruncate(fd, (off_t)size) < 0) {
		error_errno(err, errno, "cannot make memory for translated code");
		goto fail;
	}
	jc->size = size;
	jc->write = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	jc->exec = mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	if (jc->write == MAP_FAILED || jc->exec == MAP_FAILED) {
		error_errno(err, errno, "cannot map memory for translated code");
		goto fail;
	}
	close(fd);
	jc->hot.at = jc->write;
	jc->hot.end = jc->cold.at = jc->write + size / 5 * 2; /* stubs are larger */
	jc->cold.end = jc->write + size;
	jc->hot.exec_off = jc->cold.exec_off = jc->exec - jc->write;
	jit_emit_thunks(&jc->hot, &jc->thunks);
	jc->hot_start = jc->hot.at;
	jc->cold_start = jc->cold.at;
	return jc;
fail:
	if (fd >= 0)
		close(fd);
	if (jc) {
		if (jc->write && jc->write != MAP_FAILED)
			munmap(jc->write, size);
		if (jc->exec && jc->exec != MAP_FAILED)
			munmap(jc->exec, size);
	}
	free(jc);
	return NULL;
}

void jit_cache_free(struct jit_cache *jc)
{
	if (!jc)
		return;
	munmap(jc->write, jc->size);
	munmap(jc->exec, jc->size);
	free(jc->windowed);
	if (jc->perf_map)
		fclose(jc->perf_map);
	free(jc);
}

int jit_attach(struct soft_cpu *c, struct error *err)
{
	struct code_cache *cc = c->code;

	if (!cc->jit)
		cc->jit = jit_cache_new(c->config.code_size ? c->config.code_size : SOFT_CODE_SIZE,
					err);
	if (!cc->jit)
		return -ENOTSUP;
	int r = jit_tables_new(c, err);
	if (r == 0 && c->config.perf_map && !cc->jit->perf_map)
		r = jit_perf_map_open(cc->jit, err);
	if (r == 0 && c->config.verify)
		r = jit_verify_new(c, err);
	if (r < 0)
		jit_tables_free(c);
	else
		jit_window_new(c);
	return r;
}

void jit_cache_flush(struct code_cache *cc)
{
	struct jit_cache *jc = cc->jit;

	reset_emitters(jc);
	jc->mode_count = 0;
	jc->windowed_count = 0;
	jc->stats.flushes++;
	jc->linked = false;
	for (struct soft_cpu *c = cc->cpus; c; c = c->code_peer) {
		jit_tables_forget_jump(c, NULL);
		jit_tables_forget_code(c);
		c->jit.mode = 0;
	}
}

/* ---- Links ---- */

static void set_rel32(struct jit_cache *jc, uint8_t *patch, const uint8_t *target)
{
	store_le32(patch, (uint32_t)(target - (patch + jc->hot.exec_off + 4)));
}

void jit_link(struct jit_cache *jc, struct jit_code *from, unsigned n, struct jit_code *to)
{
	struct jit_link *l = &from->link[n];
	const struct code_block *a = from->block, *b = to->block;
	bool same_page = a && !a->host2 && !b->host2 &&
			 ((uintptr_t)a->host ^ (uintptr_t)b->host) < GUEST_PAGE_SIZE;
	const uint8_t *target = !same_page            ? to->indirect
				: to->eip > from->eip ? to->entry
						      : to->checked;

	if (l->target || !a || from->mode != to->mode)
		return;
	l->target = to;
	l->unchecked = target == to->entry;
	jc->linked = true;
	l->next = to->incoming;
	to->incoming = l;
	set_rel32(jc, l->patch, target);
}

void jit_predict(struct jit_cache *jc, struct jit_code *from, struct jit_code *to)
{
	if (from->link[0].target)
		return;
	jit_link(jc, from, 0, to);
	if (from->link[0].target)
		store_le32(from->prediction, -to->eip);
}

static void unlink_from(struct jit_link *l)
{
	struct jit_link **where = &l->target->incoming;

	while (*where != l)
		where = &(*where)->next;
	*where = l->next;
	l->target = NULL;
}

void jit_block_dropped(struct code_cache *cc, struct code_block *b)
{
	for (struct jit_code *code = b->jit; code; code = code->next) {
		while (code->incoming) {
			struct jit_link *l = code->incoming;
			code->incoming = l->next;
			l->target = NULL;
			set_rel32(cc->jit, l->patch, l->stub);
		}
		for (unsigned n = 0; n < ARRAY_SIZE(code->link); n++)
			if (code->link[n].target)
				unlink_from(&code->link[n]);
		for (struct soft_cpu *c = cc->cpus; c; c = c->code_peer)
			jit_tables_forget_jump(c, code);
		code->block = NULL;
		cc->jit->stats.dropped++;
	}
	b->jit = NULL;
}

/* ---- Modes ---- */

void jit_segment_changed(struct soft_cpu *c, unsigned sreg)
{
	enum { WHOLE = 0xFFFFFFFF - 14, BASE_ALIGN = 16 }; /* see segment_changed() */
	const struct segment_window *w = &c->window[sreg];
	bool reads = w->read_end == (uint32_t)WHOLE, writes = w->write_end == (uint32_t)WHOLE;
	uint8_t flat = (uint8_t)((w->base == 0 && reads && writes) << sreg);
	uint64_t read_end = w->read_end, write_end = w->write_end;

	/* An aligned access through a segment of 4 GiB with an aligned base never passes its end.
	 * jit_translate() takes care of the others. */
	if ((sreg == S_FS || sreg == S_GS) && w->base % BASE_ALIGN == 0) {
		if (reads)
			read_end = UINT64_C(1) << 32;
		if (writes)
			write_end = UINT64_C(1) << 32;
	}
	c->jit.limit[sreg][0] = -(int64_t)read_end;
	c->jit.limit[sreg][1] = -(int64_t)write_end;
	if ((c->jit.flat ^ flat) & 1 << sreg) {
		c->jit.flat ^= (uint8_t)(1 << sreg);
		c->jit.mode = 0;
	}
}

static bool modes_equal(const struct jit_mode *a, const struct jit_mode *b)
{
	return a->cs_base == b->cs_base && a->cs_limit == b->cs_limit && a->code32 == b->code32 &&
	       a->stack32 == b->stack32 && a->flat == b->flat && a->sse == b->sse &&
	       a->window == b->window;
}

uint16_t jit_mode_now(struct soft_cpu *c)
{
	enum { DATA = 1 << S_DS | 1 << S_ES | 1 << S_SS };
	struct jit_cache *jc = c->code->jit;
	const struct cpu_segment *cs = &c->seg[S_CS];
	uint16_t *last = &c->jit.last_mode[c->cpl == 3];
	unsigned n;

	if (c->jit.mode)
		return c->jit.mode;
	struct jit_mode m = {
		.cs_base = cs->base,
		.cs_limit = cs->limit,
		.code32 = c->code32,
		.stack32 = c->stack32,
		.flat = (c->jit.flat & DATA) == DATA,
		.sse = c->cr4 & CR4_OSFXSR,
	};
	m.window = m.flat && m.stack32 && jit_window_on(c);
	if (*last && *last <= jc->mode_count && modes_equal(&jc->modes[*last - 1], &m))
		return c->jit.mode = *last;
	for (n = 0; n < jc->mode_count && !modes_equal(&jc->modes[n], &m); n++)
		;
	if (n == JIT_MODES_MAX)
		return 0;
	if (n == jc->mode_count)
		jc->modes[jc->mode_count++] = m;
	return c->jit.mode = *last = (uint16_t)(n + 1);
}

/* ---- Translating a block ---- */

/* Behind the entry that looks whether the host page is still mapped there. */
static void emit_page_check(struct jit *j, uint32_t linear, const uint8_t *host,
			    const uint8_t *remapped)
{
	enum { PAGE_SHIFT = 12 };
	struct emitter *e = &j->hot;
	uint32_t page = linear & PAGE_ADDR;
	uintptr_t delta = ((uintptr_t)host & ~(uintptr_t)PAGE_OFFSET) - page;

	emit_mov_imm64(e, RCX, -(uint64_t)delta);
	emit_rm(e, OP_LOAD | EMIT_W, R9, R13, HOST_NONE, 0,
		JIT_EXEC + (int32_t)(page >> PAGE_SHIFT) * JIT_ENTRY);
	emit_lea64(e, RCX, RCX, R9, 0, 0);
	uint8_t *same = emit_jrcxz(e);
	emit_jmp(e, remapped);
	emit_here(e, same);
}

static void emit_entries(struct jit *j)
{
	struct jit_code *code = j->code;
	const struct code_block *b = code->block;
	uint32_t linear = j->mode.cs_base + code->eip;
	const uint8_t *remapped = emit_exec(&j->cold);

	jit_call_site(j, &j->cold, JIT_SITE_REMAPPED, 0, code->eip, NULL);
	const uint8_t *leave = emit_exec(&j->cold);
	jit_call_site(j, &j->cold, JIT_SITE_LEAVE, 0, code->eip, NULL);

	uint8_t *out = j->hot.at;
	emit_jmp(&j->hot, leave);
	code->indirect = emit_exec(&j->hot);
	emit_page_check(j, linear, b->host, remapped);
	if (b->host2)
		emit_page_check(j, linear + PAGE_OFFSET, b->host2, remapped);
	code->checked = emit_exec(&j->hot);
	jit_shift(j, RCX, R11, RCX);
	emit8(&j->hot, 0xE3); /* JRCXZ back */
	emit8(&j->hot, (unsigned)(out - (j->hot.at + 1)));
	code->entry = emit_exec(&j->hot);
	emit_lea64(&j->hot, R11, R11, HOST_NONE, 0, b->count);
}

/* The instruction that starts there went through the window: where it goes on after a fault. */
static void note_fault(struct jit *j, const uint8_t *start)
{
	j->code->faults[j->code->fault_count++] = (struct jit_fault){
		.start = start + j->hot.exec_off,
		.end = emit_exec(&j->hot),
		.stub = jit_interpreter_stub(j),
	};
}

/* Room for the code among those with a window, and for its faults. */
static bool prepare_faults(struct soft_cpu *c, struct jit_code *code)
{
	struct jit_cache *jc = c->code->jit;

	if (jc->windowed_count == jc->windowed_room) {
		unsigned room = jc->windowed_room ? 2 * jc->windowed_room : 1024;
		struct jit_code **more = realloc(jc->windowed, room * sizeof(struct jit_code *));
		if (!more)
			return false;
		jc->windowed = more;
		jc->windowed_room = room;
	}
	code->faults = code_alloc(c->code, code->block->count * sizeof(*code->faults));
	return code->faults != NULL;
}

static void translate_insn(struct jit *j, const struct insn *i)
{
	j->insn = i;
	uint8_t *start;

	j->interpreter = NULL;
	j->interpret_site = NULL;
	j->window = false;
	j->not_window = j->code->block->flat_only;
	jit_flush_pending(j, false);
	start = j->hot.at;
	if (i->exec == op_undefined ||
	    !(jit_int_insn(j, i) || jit_flow_insn(j, i) || jit_system_insn(j, i) ||
	      jit_x87_insn(j, i) || jit_simd_insn(j, i)))
		jit_interpret(j);
	if (j->window)
		note_fault(j, start);
	if (j->interpret_site)
		j->interpret_site->resume = emit_exec(&j->hot);
}

/* Whether the instruction, translated, ends its block by itself. */
static bool transfers_control(const struct insn *i)
{
	switch (i->opcode) {
	case 0x70 ... 0x7F:
	case 0x180 ... 0x18F:
	case 0xC2:
	case 0xC3:
	case 0xE0 ... 0xE3:
	case 0xE8:
	case 0xE9:
	case 0xEB: return true;
	case 0xFF: return i->reg == 2 || i->reg == 4;
	default: return false;
	}
}

struct jit_code *jit_translate_block(struct soft_cpu *c, struct code_block *b, uint16_t mode)
{
	/* More than any instruction needs. */
	enum { HOT_EACH = 160, COLD_EACH = 320 };
	struct jit_cache *jc = c->code->jit;
	struct jit_code *code;
	struct jit j = {
		.hot = jc->hot, .cold = jc->cold, .cache = jc, .cpu = c, .eip = c->next_eip};

	if (j.hot.end - j.hot.at < (b->count + 2) * HOT_EACH ||
	    j.cold.end - j.cold.at < (b->count + 2) * COLD_EACH)
		return NULL;
	code = code_alloc(c->code, sizeof(*code));
	if (!code)
		return NULL;
	memset(code, 0, sizeof(*code));
	code->block = b;
	code->eip = j.eip;
	code->mode = mode;
	j.code = code;
	j.mode = jc->modes[mode - 1];
	if (j.mode.window && !prepare_faults(c, code))
		return NULL;
	while ((uintptr_t)j.hot.at % CODE_ALIGN)
		emit8(&j.hot, 0xCC);
	emit_entries(&j);
	for (j.index = 0; j.index < b->count; j.index++) {
		const struct insn *i = &b->insn[j.index];
		translate_insn(&j, i);
		j.eip += i->len;
	}
	const struct insn *last = &b->insn[b->count - 1];
	if (!transfers_control(last))
		jit_exit_to(&j, 1, j.eip);
	jit_flush_pending(&j, true);
	if (j.failed || j.hot.full || j.cold.full) {
		b->runs = BLOCK_NEVER;
		return NULL;
	}
	jc->stats.translated++;
	jc->stats.translated_bytes += b->bytes;
	jc->stats.host_bytes += (uint64_t)(j.hot.at - jc->hot.at + (j.cold.at - jc->cold.at));
	code->host_bytes = (uint16_t)(j.hot.at - jc->hot.at);
	if (unlikely(trace_on(TRACE_OUT_ASM) || jc->perf_map))
		jit_report_code(c, code, &j.hot, jc->hot.at, &j.cold, jc->cold.at);
	jc->hot = j.hot;
	jc->cold = j.cold;
	code->next = b->jit;
	b->jit = code;
	if (code->faults)
		jc->windowed[jc->windowed_count++] = code;
	return code;
}
