/* SPDX-License-Identifier: MIT */
/*
 * diff: compares interpreter and translator with the host CPU on random instruction streams.
 *
 *   diff [--seed N] [--count INSTRUCTIONS] [--only GROUP[,GROUP...]] [--block N] [--keep-going N]
 *        [--verify] [--forms]
 *
 * A block of instructions runs on all. An exception ends the run everywhere at the same place with
 * the same state, or it is a difference; then the block goes on behind the instruction. The
 * translator runs it a second time, through the jumps that the first run linked. When a block
 * differs, it is run again one instruction at a time (EFLAGS.TF), so that the instruction can be
 * named; what the translator alone does wrong may be right step by step, since single steps are
 * interpreted.
 *
 * --verify: the translator in lock-step mode. --forms: how often each instruction form was
 * executed, to the least often one.
 */
#include "tests/diff/diff.h"
#include "lib/bytes.h"
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
	MAX_FAULTS = 10, /* of one block */
	REFRESH = 64,    /* blocks between new memory contents */
};
#define FLAGS_COMPARED (FL_ARITH | FL_DF | FL_NT | FL_AC | FL_ID)

static struct block block;
static struct machine_state start, native, soft; /* `soft`: of the engine being compared */
static uint8_t start_data[DATA_SIZE];
static enum soft_engine engine;

/* ---- comparing ---- */

static bool same_fx(const uint8_t *a, const uint8_t *b)
{
	if (memcmp(a, b, 5) != 0 || memcmp(a + FX_FIP, b + FX_FIP, 4) != 0 ||
	    memcmp(a + FX_MXCSR, b + FX_MXCSR, 4) != 0)
		return false;
	for (unsigned n = 0; n < 8; n++)
		if (memcmp(a + FX_ST + 16 * n, b + FX_ST + 16 * n, 10) != 0)
			return false;
	return memcmp(a + FX_XMM, b + FX_XMM, 128) == 0;
}

/* An access across 4 GiB in a flat segment may or may not violate the limit (SDM vol. 3A, 5.3).
 * Where it does not, it is looked at further: for its alignment, then its page. */
static bool wraps_around(const struct outcome *host, const struct outcome *soft)
{
	enum { LARGEST_OPERAND = 512 };
	bool at_end = host->vector == EXC_PF && host->cr2 + LARGEST_OPERAND < LARGEST_OPERAND * 2;

	return (at_end || host->vector == EXC_AC) &&
	       (soft->vector == EXC_GP || soft->vector == EXC_SS);
}

static bool same_outcome(const struct outcome *a, const struct outcome *b)
{
	/* A fetch is told apart only where NX is enabled; and ring 0's pages are not there on the
	 * host. */
	enum { PF_PRESENT = 1 << 0, PF_FETCH = 1 << 4 };
	uint32_t ignored = PF_FETCH | (b->cr2 - SYSTEM_BASE < SYSTEM_SIZE ? PF_PRESENT : 0);

	if (a->finished || b->finished)
		return a->finished == b->finished;
	if (wraps_around(a, b))
		return true;
	if (a->vector != b->vector)
		return false;
	if (a->vector == EXC_PF)
		return a->cr2 == b->cr2 && !((a->error ^ b->error) & ~ignored);
	return a->vector < EXC_DF || a->vector > EXC_AC || a->vector == EXC_MF ||
	       a->error == b->error;
}

static bool same(const struct machine_state *a, const struct machine_state *b, uint32_t undefined)
{
	return memcmp(a->gpr, b->gpr, sizeof a->gpr) == 0 && a->eip == b->eip &&
	       !((a->eflags ^ b->eflags) & FLAGS_COMPARED & ~undefined) && same_fx(a->fx, b->fx) &&
	       memcmp(native_data, soft_data[engine], DATA_SIZE) == 0;
}

/* ---- reporting ---- */

/* Takes what an FSTENV or the like stored of the x87's pointers from the host. */
static void ignore_pointers(const struct gen_insn *insn)
{
	for (unsigned n = 0; n < 32; n++)
		if (insn->env_bytes >> n & 1)
			soft_data[engine][insn->env + n] = native_data[insn->env + n];
}

static void print_bytes(const uint8_t *p, unsigned n)
{
	while (n-- > 0)
		printf("%02x ", *p++);
}

static void print_outcome(const char *who, const struct machine_state *s, const struct outcome *o)
{
	printf("  %-11s eip %08x ", who, s->eip);
	if (o->finished)
		printf("finished\n");
	else
		printf("vector %u error %x cr2 %08x\n", o->vector, o->error, o->cr2);
}

static void print_row(const char *name, const uint8_t *from, const uint8_t *a, const uint8_t *b,
		      unsigned size)
{
	printf("  %c %-7s ", memcmp(a, b, size) != 0 ? '*' : ' ', name);
	for (unsigned n = size; n-- > 0;)
		printf("%02x", from[n]);
	printf(" -> ");
	for (unsigned n = size; n-- > 0;)
		printf("%02x", a[n]);
	if (memcmp(a, b, size) != 0) {
		printf(" / ");
		for (unsigned n = size; n-- > 0;)
			printf("%02x", b[n]);
	}
	printf("\n");
}

static void print_states(const struct machine_state *from, const struct outcome *no,
			 const struct outcome *so, bool fpu)
{
	static const char *const gpr[8] = {"eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"};
	char name[8];
	unsigned printed = 0;

	print_outcome("host", &native, no);
	print_outcome(soft_names[engine], &soft, so);
	printf("    before -> host / %s where they differ\n", soft_names[engine]);
	for (unsigned n = 0; n < 8; n++)
		print_row(gpr[n], (const uint8_t *)&from->gpr[n], (const uint8_t *)&native.gpr[n],
			  (const uint8_t *)&soft.gpr[n], 4);
	print_row("eflags", (const uint8_t *)&from->eflags, (const uint8_t *)&native.eflags,
		  (const uint8_t *)&soft.eflags, 4);
	if (fpu || !same_fx(native.fx, soft.fx)) {
		print_row("cw", from->fx, native.fx, soft.fx, 2);
		print_row("sw", from->fx + 2, native.fx + 2, soft.fx + 2, 2);
		print_row("tags", from->fx + 4, native.fx + 4, soft.fx + 4, 1);
		print_row("fip", from->fx + FX_FIP, native.fx + FX_FIP, soft.fx + FX_FIP, 4);
		print_row("mxcsr", from->fx + FX_MXCSR, native.fx + FX_MXCSR, soft.fx + FX_MXCSR,
			  4);
		for (unsigned n = 0; n < 8; n++) {
			unsigned at = FX_ST + 16 * n;

			snprintf(name, sizeof name, "st%u", n);
			print_row(name, from->fx + at, native.fx + at, soft.fx + at, 10);
		}
		for (unsigned n = 0; n < 8; n++) {
			unsigned at = FX_XMM + 16 * n;

			snprintf(name, sizeof name, "xmm%u", n);
			print_row(name, from->fx + at, native.fx + at, soft.fx + at, 16);
		}
	}
	for (unsigned n = 0; n < DATA_SIZE && printed < 32; n++)
		if (native_data[n] != soft_data[engine][n]) {
			printf("  * [%08x] %02x / %02x\n", DATA_BASE + n, native_data[n],
			       soft_data[engine][n]);
			printed++;
		}
}

/* ---- running ---- */

static void load_memory(const uint8_t *data)
{
	memcpy(native_data, data, DATA_SIZE);
	for (unsigned e = 0; e < SOFT_ENGINES; e++)
		memcpy(soft_data[e], data, DATA_SIZE);
}

/* Index of the instruction at `eip`, or `count` if none begins there. */
static unsigned insn_at(uint32_t eip)
{
	unsigned n = 0;

	while (n < block.count && (uint32_t)CODE_BASE + block.insn[n].offset != eip)
		n++;
	return n;
}

/* Where to go on after an exception; 0 if the block ends with it. */
static uint32_t resume_at(uint32_t eip, unsigned vector)
{
	unsigned n = insn_at(eip);

	if (n >= block.count - 1)
		return 0;
	if (vector == EXC_BP || vector == EXC_OF || vector == EXC_DB)
		return eip;
	return (uint32_t)CODE_BASE + block.insn[n + 1].offset;
}

/* FSTP of 80 bits: DB /7 with a memory operand. */
static bool stores_80_bits(const struct gen_insn *insn)
{
	enum { OPERAND_SIZE = 0x66, SEGMENT_FIRST = 0x26, ESCAPE = 0xDB, DIGIT = 7 };
	const uint8_t *p = block.code + insn->offset;

	while (*p == OPERAND_SIZE || (*p & 0xE7) == SEGMENT_FIRST || (*p & 0xFC) == 0x64 ||
	       *p == 0xF2 || *p == 0xF3)
		p++;
	return p[0] == ESCAPE && (p[1] >> 3 & 7) == DIGIT && p[1] < 0xC0;
}

/*
 * An 80-bit store that faults on its second page may leave something on the first: some processors
 * write mantissa and exponent one after the other. Takes it from the host.
 */
static void ignore_first_part(const struct outcome *o, const struct gen_insn *insn)
{
	enum { PAGE_MASK = 0xFFF, SIZE = 10 };
	uint32_t at = o->cr2 - DATA_BASE;

	if (o->finished || o->vector != EXC_PF || o->cr2 & PAGE_MASK || at < SIZE ||
	    at > DATA_SIZE || !stores_80_bits(insn))
		return;
	memcpy(soft_data[engine] + at - SIZE, native_data + at - SIZE, SIZE);
}

/* The code went astray to what is there on the host alone. */
static bool is_trampoline(const struct outcome *soft)
{
	return soft->vector == EXC_PF && soft->cr2 - TRAMPOLINE < TRAMPOLINE_SIZE;
}

/* What the host did: the stretches between exceptions. */
static struct stretch {
	struct machine_state before, after;
	struct outcome outcome;
	uint8_t data[DATA_SIZE]; /* after */
} stretches[MAX_FAULTS + 1];
static unsigned stretch_count;

static void run_natively(void)
{
	uint32_t next = start.eip;

	native = start;
	stretch_count = 0;
	while (next) {
		struct stretch *t = &stretches[stretch_count++];

		native.eip = next;
		t->before = native;
		native_run(&native, &t->outcome);
		t->after = native;
		memcpy(t->data, native_data, DATA_SIZE);
		if (t->outcome.finished || t->outcome.astray ||
		    stretch_count == ARRAY_SIZE(stretches))
			break;
		next = resume_at(native.eip, t->outcome.vector);
		native.eflags &= ~(uint32_t)FL_RF;
	}
}

enum verdict { SAME, DIFFERENT, NO_COMPARISON };

/* Whether `engine` does the same. */
static enum verdict run_softly(void)
{
	memcpy(soft_data[engine], start_data, DATA_SIZE);
	for (unsigned n = 0; n < stretch_count; n++) {
		const struct stretch *t = &stretches[n];
		struct outcome so;

		soft = t->before;
		soft_run(engine, &soft, &so);
		if (is_trampoline(&so))
			return NO_COMPARISON;
		native = t->after;
		memcpy(native_data, t->data, DATA_SIZE);
		ignore_first_part(&so, &block.insn[insn_at(native.eip)]);
		if (!same_outcome(&t->outcome, &so) ||
		    !same(&native, &soft,
			  t->outcome.finished ? 0 : block.insn[insn_at(native.eip)].undefined))
			return DIFFERENT;
	}
	return SAME;
}

/*
 * Whether the block did the same everywhere; if not, `engine` did something else. Where the host
 * went astray, nothing can be compared.
 */
static enum verdict run_block(void)
{
	enum verdict v = NO_COMPARISON;

	run_natively();
	if (!stretches[stretch_count - 1].outcome.astray)
		v = SAME;
	for (unsigned run = 0; run < SOFT_ENGINES + 1 && v == SAME; run++) {
		engine = run < SOFT_ENGINES ? run : SOFT_TRANSLATOR;
		v = run_softly();
	}
	if (v == NO_COMPARISON)
		load_memory(start_data);
	return v;
}

/* Blocks without comparison: so many may be bad luck, more would hide something. */
static bool too_many(uint64_t uncompared, uint64_t blocks)
{
	enum { ONCE_IN = 100000, ALWAYS = 5 };

	return uncompared > blocks / ONCE_IN + ALWAYS;
}

/* Runs the block step by step and tells where it goes apart. */
static void explain(bool fpu)
{
	struct machine_state before;
	struct outcome no = {0}, so = {0};
	unsigned steps, n;

	native = soft = start;
	load_memory(start_data);
	for (steps = 0; steps < 20000; steps++) {
		uint32_t eip = native.eip, undefined = 0;

		before = native;
		n = insn_at(eip);
		native.eflags |= FL_TF;
		soft.eflags |= FL_TF;
		native_run(&native, &no);
		soft_run(engine, &soft, &so);
		if (n < block.count) {
			undefined = block.insn[n].undefined;
			ignore_pointers(&block.insn[n]);
		}
		if (!same_outcome(&no, &so) || !same(&native, &soft, undefined)) {
			printf("difference after %u steps, instruction ", steps);
			print_bytes(block.code + (eip - CODE_BASE),
				    n < block.count
					    ? block.insn[n + 1].offset - block.insn[n].offset
					    : 16);
			printf("\n");
			print_states(&before, &no, &so, fpu);
			return;
		}
		if (no.finished || native.eip == CODE_EXIT)
			break;
		native.eip = soft.eip =
			no.vector == EXC_DB ? native.eip : resume_at(native.eip, no.vector);
		native.eflags = soft.eflags = native.eflags & ~(uint32_t)FL_RF;
		if (!native.eip)
			break;
	}
	/* Step by step it is right: show the run as a whole. */
	load_memory(start_data);
	run_block();
	printf("difference of the %s in a block that is right step by step%s:\n  ",
	       soft_names[engine], engine == SOFT_TRANSLATOR ? " (--verify says more)" : "");
	for (n = 0; n < block.count; n++) {
		print_bytes(block.code + block.insn[n].offset,
			    block.insn[n + 1].offset - block.insn[n].offset);
		printf("\n  ");
	}
	printf("\n");
	no = so = (struct outcome){.finished = true};
	print_states(&start, &no, &so, fpu);
}

static unsigned parse_groups(char *list)
{
	unsigned mask = 0;

	for (char *name = strtok(list, ","); name; name = strtok(NULL, ",")) {
		unsigned n = 0;

		while (group_names[n] && strcmp(group_names[n], name) != 0)
			n++;
		if (!group_names[n]) {
			fprintf(stderr, "diff: unknown group '%s'; there are:", name);
			for (n = 0; group_names[n]; n++)
				fprintf(stderr, " %s", group_names[n]);
			fprintf(stderr, "\n");
			exit(1);
		}
		mask |= 1u << n;
	}
	return mask;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"seed", 1, NULL, 's'},       {"count", 1, NULL, 'c'},
		{"only", 1, NULL, 'o'},       {"block", 1, NULL, 'b'},
		{"keep-going", 1, NULL, 'k'}, {"verify", 0, NULL, 'v'},
		{"forms", 0, NULL, 'f'},      {0}};
	uint64_t seed = (uint64_t)time(NULL), count = 10000000, blocks = 0, differences = 0,
		 uncompared = 0, keep_going = 1;
	unsigned groups = ~0u, size = 48;
	bool verify = false, forms = false;
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 's': seed = strtoull(optarg, NULL, 0); break;
		case 'c': count = strtoull(optarg, NULL, 0); break;
		case 'o': groups = parse_groups(optarg); break;
		case 'b': size = (unsigned)atoi(optarg); break;
		case 'v': verify = true; break;
		case 'f': forms = true; break;
		case 'k': keep_going = strtoull(optarg, NULL, 0); break;
		default: return 1;
		}
	}
	if (size < 1 || size > 400)
		size = 48;
	if (!soft_open(verify) || !native_open())
		return 1;
	for (unsigned e = 0; e < SOFT_ENGINES; e++)
		soft_load_code(e, native_code, CODE_SIZE);
	for (; soft_instructions(SOFT_INTERPRETER) < count && differences < keep_going &&
	       !too_many(uncompared, blocks);
	     blocks++) {
		uint64_t block_seed =
			seed * UINT64_C(0x9E3779B97F4A7C15) + blocks * UINT64_C(0xD1B54A32D192ED03);

		random_state = block_seed | 1;
		for (unsigned n = 0; n < 4; n++)
			random32();
		if (blocks % REFRESH == 0) {
			generate_data(start_data, DATA_SIZE);
			load_memory(start_data);
		}
		generate_block(&block, size, groups);
		generate_state(&start);
		memcpy(native_code, block.code, block.len);
		for (unsigned e = 0; e < SOFT_ENGINES; e++)
			soft_load_code(e, block.code, block.len);
		memcpy(start_data, native_data, DATA_SIZE);
		enum verdict v = run_block();
		uncompared += v == NO_COMPARISON;
		if (v == DIFFERENT) {
			printf("seed %llu, block %llu: ", (unsigned long long)seed,
			       (unsigned long long)blocks);
			explain((groups & ~0x1FFu) != 0);
			differences++;
			load_memory(start_data);
		}
	}
	if (!soft_translated()) {
		printf("nothing was translated\n");
		differences++;
	}
	printf("%llu instructions in %llu blocks (%llu without comparison), %llu translations, "
	       "seed %llu: %llu differences\n",
	       (unsigned long long)soft_instructions(SOFT_INTERPRETER), (unsigned long long)blocks,
	       (unsigned long long)uncompared, (unsigned long long)soft_translated(),
	       (unsigned long long)seed, (unsigned long long)differences);
	if (too_many(uncompared, blocks)) {
		printf("too many blocks could not be compared\n");
		differences++;
	}
	if (forms)
		print_form_counts();
	return differences != 0;
}
