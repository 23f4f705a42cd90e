/* SPDX-License-Identifier: MIT */
/*
 * How fast the software CPU runs integer code: guest loops in flat 32-bit protected mode, without
 * and with paging, reported as millions of guest instructions a second. Usage: cpu_speed [million
 * instructions a loop]
 */
#include "core/iobus.h"
#include "core/memory.h"
#include "cpu/soft_cpu.h"
#include "lib/bytes.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
	RAM = 8 << 20,
	CODE = 0x10000,
	DATA = 0x100000,
	STACK = 0x80000,
	PAGE_DIR = 0x400000,
	PAGE_TABLES = 0x401000
};

struct loop_code {
	const char *name;
	const uint8_t *bytes;
	size_t size;
};

/* for (;;) for (i = 0; i < 65536; i++) crc = crc >> 1 ^ (crc & 1 ? poly : 0) ^ data[i] */
static const uint8_t crc[] = {
	0xBE, 0x00, 0x00, 0x10, 0x00,       /* top: mov esi, DATA */
	0xB9, 0x00, 0x00, 0x01, 0x00,       /* mov ecx, 65536 */
	0x0F, 0xB6, 0x1E,                   /* next: movzx ebx, byte [esi] */
	0x31, 0xD8,                         /* xor eax, ebx */
	0x89, 0xC2,                         /* mov edx, eax */
	0xD1, 0xE8,                         /* shr eax, 1 */
	0x83, 0xE2, 0x01,                   /* and edx, 1 */
	0xF7, 0xDA,                         /* neg edx */
	0x81, 0xE2, 0x20, 0x83, 0xB8, 0xED, /* and edx, 0xEDB88320 */
	0x31, 0xD0,                         /* xor eax, edx */
	0x46,                               /* inc esi */
	0x49,                               /* dec ecx */
	0x75, 0xE6,                         /* jnz next */
	0xEB, 0xDA,                         /* jmp top */
};
/* A sieve over 64 KiB: clear, then for each i from 2 strike out its multiples. */
static const uint8_t sieve[] = {
	0xBF, 0x00, 0x00, 0x10, 0x00,             /* top: mov edi, DATA */
	0xB9, 0x00, 0x40, 0x00, 0x00,             /* mov ecx, 16384 */
	0x31, 0xC0,                               /* xor eax, eax */
	0xF3, 0xAB,                               /* rep stosd */
	0xBB, 0x02, 0x00, 0x00, 0x00,             /* mov ebx, 2 */
	0x80, 0xBB, 0x00, 0x00, 0x10, 0x00, 0x00, /* outer: cmp byte [ebx + DATA], 0 */
	0x75, 0x16,                               /* jne skip */
	0x8D, 0x14, 0x1B,                         /* lea edx, [ebx + ebx] */
	0x81, 0xFA, 0x00, 0x00, 0x01, 0x00,       /* inner: cmp edx, 65536 */
	0x73, 0x0B,                               /* jae skip */
	0xC6, 0x82, 0x00, 0x00, 0x10, 0x00, 0x01, /* mov byte [edx + DATA], 1 */
	0x01, 0xDA,                               /* add edx, ebx */
	0xEB, 0xED,                               /* jmp inner */
	0x43,                                     /* skip: inc ebx */
	0x81, 0xFB, 0x00, 0x01, 0x00, 0x00,       /* cmp ebx, 256 */
	0x72, 0xD8,                               /* jb outer */
	0xEB, 0xC3,                               /* jmp top */
};
/* Calls and stack traffic: a recursive Fibonacci number. */
static const uint8_t fib[] = {
	0xB8, 0x14, 0x00, 0x00, 0x00, /* top: mov eax, 20 */
	0xE8, 0x02, 0x00, 0x00, 0x00, /* call fib */
	0xEB, 0xF4,                   /* jmp top */
	0x55,                         /* fib: push ebp */
	0x89, 0xE5,                   /* mov ebp, esp */
	0x53,                         /* push ebx */
	0x83, 0xF8, 0x02,             /* cmp eax, 2 */
	0x72, 0x14,                   /* jb done */
	0x50,                         /* push eax */
	0x48,                         /* dec eax */
	0xE8, 0xF0, 0xFF, 0xFF, 0xFF, /* call fib */
	0x89, 0xC3,                   /* mov ebx, eax */
	0x58,                         /* pop eax */
	0x83, 0xE8, 0x02,             /* sub eax, 2 */
	0xE8, 0xE5, 0xFF, 0xFF, 0xFF, /* call fib */
	0x01, 0xD8,                   /* add eax, ebx */
	0x5B,                         /* done: pop ebx */
	0x5D,                         /* pop ebp */
	0xC3,                         /* ret */
};
#define LOOP(name)                                                                                 \
	{                                                                                          \
#name, name, sizeof(name)                                                          \
	}
static const struct loop_code loops[] = {LOOP(crc), LOOP(sieve), LOOP(fib)};

static double seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Identity mapping of the RAM by 4 KiB pages. */
static void make_page_tables(uint8_t *ram)
{
	enum { PRESENT_WRITABLE = 3 };
	for (uint32_t n = 0; n < RAM >> 22; n++)
		store_le32(ram + PAGE_DIR + 4 * n, (PAGE_TABLES + n * 4096) | PRESENT_WRITABLE);
	for (uint32_t n = 0; n < RAM >> 12; n++)
		store_le32(ram + PAGE_TABLES + 4 * n, n << 12 | PRESENT_WRITABLE);
}

static void set_flat(struct cpu_state *s, bool paging)
{
	for (unsigned n = 0; n < 6; n++) {
		s->seg[n].base = 0;
		s->seg[n].limit = 0xFFFFFFFF;
		s->seg[n].selector = n == S_CS ? 8 : 16;
		s->seg[n].attr = SEG_P | SEG_S | SEG_DB | SEG_G | SEG_RW | SEG_ACCESSED |
				 (n == S_CS ? SEG_CODE : 0);
	}
	s->cr0 |= CR0_PE | (paging ? CR0_PG : 0);
	s->cr3 = PAGE_DIR;
	s->eip = CODE;
	s->gpr[R_ESP] = STACK;
}

int main(int argc, char **argv)
{
	uint64_t count = (argc > 1 ? strtoull(argv[1], NULL, 0) : 300) * 1000000;
	struct error err = ERROR_INIT;
	struct memory *mem = memory_new();
	struct mem_region *ram = mem_region_new_ram(mem, "ram", RAM, &err);
	struct cpu_model model;

	if (!ram || cpu_model_parse("qemu32", &model, &err) < 0) {
		fprintf(stderr, "cpu_speed: %s\n", err.text);
		return 1;
	}
	mem_mapping_set(mem_map(mem, ram, 0, 0, RAM, MEM_PRIO_RAM), 0, MEM_RW);
	for (size_t n = 0; n < 2 * ARRAY_SIZE(loops); n++) {
		const struct loop_code *l = &loops[n / 2];
		bool paging = n & 1;
		struct soft_cpu_config config = {.cpus = 1, .model = &model, .mem = mem};
		struct soft_cpu *cpu = soft_cpu_new(&config, &err);
		struct cpu_state s;

		if (!cpu) {
			fprintf(stderr, "cpu_speed: %s\n", err.text);
			return 1;
		}
		memcpy(ram->host + CODE, l->bytes, l->size);
		make_page_tables(ram->host);
		soft_cpu_get_state(cpu, &s);
		set_flat(&s, paging);
		soft_cpu_set_state(cpu, &s);
		double start = seconds();
		enum soft_exit exit = soft_cpu_run(cpu, count);
		double took = seconds() - start;
		printf("%-6s %-9s %7.1f million instructions/s%s\n", l->name,
		       paging ? "paged" : "unpaged",
		       (double)soft_cpu_instructions(cpu) / took * 1e-6,
		       exit == SOFT_BUDGET ? "" : " (stopped)");
		soft_cpu_free(cpu);
	}
	memory_free(mem);
	return 0;
}
