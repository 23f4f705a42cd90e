/* SPDX-License-Identifier: MIT */
/*
 * What the translator tells about itself: counters for `info jit`, translated code for
 * `-d out_asm`, and symbols for perf(1).
 *
 * perf reads /tmp/perf-PID.map: lines of start address, size and name, in hexadecimal without 0x
 * (Linux, tools/perf/Documentation/jit-interface.txt). Code memory is used again after a flush, so
 * a map of a long run names some addresses twice; perf takes one of them.
 */
#include "cpu/jit.h"
#include "lib/strbuf.h"
#include "lib/text.h"
#include <errno.h>
#include <stdio.h>
#include <unistd.h>
#ifdef HAVE_CAPSTONE
#include <capstone/capstone.h>
#endif

/* ---- Counters ---- */

static double per(uint64_t a, uint64_t b)
{
	return b ? (double)a / (double)b : 0;
}

void soft_cpu_describe_jit(const struct soft_cpu *c, struct strbuf *out)
{
	static const char *const causes[JIT_SITE_KINDS] = {
		[JIT_SITE_INTERPRET] = "instruction to interpret",
		[JIT_SITE_LINK] = "direct jump not linked",
		[JIT_SITE_JUMP] = "computed jump not cached",
		[JIT_SITE_LEAVE] = "time to look around",
		[JIT_SITE_REMAPPED] = "page mapped otherwise",
		[JIT_SITE_FPU] = "x87 and SSE state to load",
	};
	const struct jit_cache *jc = c->code->jit;

	if (!jc) {
		strbuf_puts(out, "The software CPU interprets; nothing is translated.\n");
		return;
	}
	const struct jit_stats *s = &jc->stats;
	size_t used = (size_t)(jc->hot.at - jc->write) + (size_t)(jc->cold.at - jc->cold_start);
	strbuf_puts(out, "Translation buffer state:\n");
	strbuf_printf(out, "gen code size       %zu/%zu\n", used, jc->size);
	strbuf_printf(out, "TB count            %llu\n", (unsigned long long)s->translated);
	strbuf_printf(out, "TB avg target size  %.1f bytes\n",
		      per(s->translated_bytes, s->translated));
	strbuf_printf(out, "TB avg host size    %.1f bytes (expansion ratio: %.1f)\n",
		      per(s->host_bytes, s->translated), per(s->host_bytes, s->translated_bytes));
	strbuf_printf(out, "modes               %u\n", jc->mode_count);
	strbuf_puts(out, "\nStatistics:\n");
	strbuf_printf(out, "TB flush count      %llu\n", (unsigned long long)s->flushes);
	strbuf_printf(out, "TB invalidate count %llu\n", (unsigned long long)s->dropped);
	strbuf_printf(out, "entries             %llu\n", (unsigned long long)s->enters);
	uint64_t all = s->enters;
	for (unsigned n = 0; n < JIT_SITE_KINDS; n++)
		all += s->callouts[n];
	strbuf_printf(out, "callouts            %llu (one in %.1f instructions)\n",
		      (unsigned long long)all, per(c->instructions, all));
	for (unsigned n = 0; n < JIT_SITE_KINDS; n++)
		strbuf_printf(out, "  %-26s%llu\n", causes[n], (unsigned long long)s->callouts[n]);
	if (c->config.verify)
		strbuf_printf(out, "lock-step           %llu pieces compared, %llu too long\n",
			      (unsigned long long)s->verified, (unsigned long long)s->unverified);
}

uint64_t soft_cpu_translated_blocks(const struct soft_cpu *c)
{
	return c->code->jit ? c->code->jit->stats.translated : 0;
}

/* ---- Symbols for perf ---- */

int jit_perf_map_open(struct jit_cache *jc, struct error *err)
{
	char path[32];

	snprintf(path, sizeof(path), "/tmp/perf-%d.map", (int)getpid());
	jc->perf_map = fopen(path, "we");
	if (!jc->perf_map)
		return error_errno(err, errno, "cannot create '%s'", path);
	setlinebuf(jc->perf_map);
	fprintf(jc->perf_map, "%llx %llx minivm_thunks\n", (unsigned long long)(uintptr_t)jc->exec,
		(unsigned long long)(jc->hot_start - jc->write));
	return 0;
}

static void map_symbol(FILE *f, const uint8_t *exec, size_t size, const char *kind, uint32_t linear)
{
	if (size)
		fprintf(f, "%llx %zx %s_%08x\n", (unsigned long long)(uintptr_t)exec, size, kind,
			linear);
}

/* ---- Translated code ---- */

static void trace_bytes(const uint8_t *p, size_t size, const uint8_t *exec)
{
	enum { EACH = 16 };

	for (size_t at = 0; at < size; at += EACH) {
		char text[3 * EACH + 1] = "";
		for (size_t k = at; k < size && k < at + EACH; k++)
			snprintf(text + 3 * (k - at), 4, " %02x", p[k]);
		trace(TRACE_OUT_ASM, "  %p:%s", (const void *)(exec + at), text);
	}
}

#ifdef HAVE_CAPSTONE
static void trace_host_code(const uint8_t *p, size_t size, const uint8_t *exec)
{
	csh handle;
	cs_insn *insns;

	if (cs_open(CS_ARCH_X86, CS_MODE_64, &handle) != CS_ERR_OK) {
		trace_bytes(p, size, exec);
		return;
	}
	size_t count = cs_disasm(handle, p, size, (uintptr_t)exec, 0, &insns), done = 0;
	for (size_t n = 0; n < count; n++) {
		trace(TRACE_OUT_ASM, "  0x%llx: %s %s", (unsigned long long)insns[n].address,
		      insns[n].mnemonic, insns[n].op_str);
		done += insns[n].size;
	}
	if (count)
		cs_free(insns, count);
	cs_close(&handle);
	trace_bytes(p + done, size - done, exec + done);
}
#else
static void trace_host_code(const uint8_t *p, size_t size, const uint8_t *exec)
{
	trace_bytes(p, size, exec);
}
#endif

void jit_report_code(struct soft_cpu *c, const struct jit_code *code, const struct emitter *hot,
		     const uint8_t *hot_from, const struct emitter *cold, const uint8_t *cold_from)
{
	struct jit_cache *jc = c->code->jit;
	size_t hot_size = (size_t)(hot->at - hot_from), cold_size = (size_t)(cold->at - cold_from);
	const uint8_t *hot_exec = hot_from + hot->exec_off, *cold_exec = cold_from + cold->exec_off;

	if (trace_on(TRACE_OUT_ASM)) {
		trace(TRACE_OUT_ASM,
		      "cpu%u: translated %04x:%08x, %u instructions in %u bytes, to %zu bytes and "
		      "%zu of stubs at %p",
		      c->config.index, c->seg[S_CS].selector, code->eip, code->block->count,
		      code->block->bytes, hot_size, cold_size, (const void *)cold_exec);
		trace_host_code(hot_from, hot_size, hot_exec);
	}
	if (jc->perf_map) {
		uint32_t linear = c->seg[S_CS].base + code->eip;
		map_symbol(jc->perf_map, hot_exec, hot_size, "guest", linear);
		map_symbol(jc->perf_map, cold_exec, cold_size, "stubs", linear);
	}
}
