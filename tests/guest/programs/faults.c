/* SPDX-License-Identifier: MIT */
/*
 * Faults as a process sees them: which signal, which vector and error code, where, and that the
 * registers are those before the instruction. String instructions stop in the middle with exact
 * counts. Addresses are printed relative to what they belong to.
 */
#define _GNU_SOURCE
#include <asm/ldt.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { PAGE = 4096 };

static sigjmp_buf back;
static struct {
	int signal, code;
	uint32_t address;
	greg_t regs[NGREG];
} seen;

static void handler(int signal, siginfo_t *info, void *context)
{
	const ucontext_t *u = context;
	/* Handlers run with the interrupted program's AC. */
	__asm__ volatile("pushf\n\tandl $~0x40000, (%%esp)\n\tpopf" : : : "cc");
	seen.signal = signal;
	seen.code = info->si_code;
	seen.address = (uint32_t)(uintptr_t)info->si_addr;
	memcpy(seen.regs, u->uc_mcontext.gregs, sizeof(seen.regs));
	siglongjmp(back, 1);
}

static uint8_t *memory; /* two pages; those before and behind them are not there */

static void report(const char *what)
{
	/* Error codes of page faults may have more bits on newer processors. */
	unsigned error = (unsigned)seen.regs[REG_ERR];
	if (seen.regs[REG_TRAPNO] == 14)
		error &= 7;
	printf("%s: signal %d vector %d error %x", what, seen.signal, (int)seen.regs[REG_TRAPNO],
	       error);
	if (seen.signal == SIGSEGV && seen.regs[REG_TRAPNO] == 14)
		printf(" address %x", seen.address - (uint32_t)(uintptr_t)memory);
	printf("\n");
}

/* Runs a statement that must fault. */
#define FAULT(what, statement)                                                                     \
	do {                                                                                       \
		memset(&seen, 0, sizeof(seen));                                                    \
		if (!sigsetjmp(back, 1)) {                                                         \
			statement;                                                                 \
			printf("%s: no fault\n", what);                                            \
		} else {                                                                           \
			report(what);                                                              \
		}                                                                                  \
	} while (0)

static void arithmetic(void)
{
	FAULT("divide by zero", __asm__ volatile("divl %0" : : "r"(0), "a"(1), "d"(0)));
	FAULT("quotient too large", __asm__ volatile("divl %0" : : "r"(1), "a"(1), "d"(1)));
	FAULT("idiv minimum", __asm__ volatile("idivl %0" : : "r"(-1), "a"(INT32_MIN), "d"(-1)));
	FAULT("aam 0", __asm__ volatile("aam $0" : : "a"(5)));
	FAULT("int3", __asm__ volatile("int3"));
	FAULT("into", __asm__ volatile("addb %%al, %%al\n\tinto" : : "a"(0x40)));
	static const int32_t bounds[2] = {3, 5};
	FAULT("bound", __asm__ volatile("bound %0, %1" : : "r"(6), "m"(bounds)));
	FAULT("undefined", __asm__ volatile("ud2"));
	FAULT("privileged", __asm__ volatile("hlt"));
	FAULT("cli", __asm__ volatile("cli"));
	FAULT("mov cr0", __asm__ volatile("mov %%cr0, %%eax" : : : "eax"));
	FAULT("in", __asm__ volatile("inb $0x70, %%al" : : : "eax"));
	FAULT("int of level 0", __asm__ volatile("int $0x0d"));
	FAULT("lock nop", __asm__ volatile(".byte 0xF0, 0x90"));
	FAULT("bad selector", __asm__ volatile("mov %0, %%es" : : "r"(0x1234)));
	FAULT("too long",
	      __asm__ volatile(".byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,"
			       "0x66,0x66,0x66,0x66,0x66,0x90"));
	FAULT("read", (void)*(volatile char *)(memory + 2 * PAGE + 5));
	FAULT("write", *(volatile char *)(memory + 2 * PAGE + 6) = 1);
	FAULT("across", *(volatile uint32_t *)(memory + 2 * PAGE - 2) = 1);
	FAULT("movaps", __asm__ volatile("movaps %0, %%xmm0" : : "m"(memory[1]) : "xmm0"));
	uint32_t unmasked = 0x1F80 & ~0x200u, masked = 0x1F80;
	FAULT("sse division", __asm__ volatile("ldmxcsr %0\n\tdivss %1, %%xmm0"
					       :
					       : "m"(unmasked), "m"(*(float *)memory)
					       : "xmm0"));
	__asm__ volatile("ldmxcsr %0" : : "m"(masked));
	uint16_t cw = 0x37B, normal = 0x37F;
	FAULT("x87 division", __asm__ volatile("fldcw %0\n\tfld1\n\tfdivs %1\n\tfwait"
					       :
					       : "m"(cw), "m"(*(float *)memory)
					       : "st"));
	__asm__ volatile("fninit\n\tfldcw %0" : : "m"(normal));
	FAULT("alignment",
	      __asm__ volatile("pushf\n\torl $0x40000, (%%esp)\n\tpopf\n\tmovl %0, %%eax"
			       :
			       : "m"(memory[1])
			       : "eax", "cc"));
}

/* A string instruction that runs into the missing page; registers relative to the memory. */
#define STRING(insn, esi, edi, ecx)                                                                \
	do {                                                                                       \
		memset(memory, 7, 2 * PAGE);                                                       \
		FAULT(insn, __asm__ volatile("test %%eax, %%eax\n\t" insn                          \
					     :                                                     \
					     : "S"(esi), "D"(edi), "c"(ecx), "a"(0x07070707)       \
					     : "memory", "cc"));                                   \
		printf("  esi %x edi %x ecx %x flags %x\n",                                        \
		       (unsigned)seen.regs[REG_ESI] - (unsigned)(uintptr_t)memory,                 \
		       (unsigned)seen.regs[REG_EDI] - (unsigned)(uintptr_t)memory,                 \
		       (unsigned)seen.regs[REG_ECX], (unsigned)seen.regs[REG_EFL] & 0x8D5);        \
	} while (0)

static void strings(void)
{
	uint8_t *end = memory + 2 * PAGE;
	STRING("rep movsb", memory, end - 100, 200);
	STRING("rep movsl", memory + 1, end - 402, 200);
	STRING("rep movsw", end - 301, memory, 200);
	STRING("rep stosl", memory, end - 1000, 400);
	STRING("rep stosb", memory, end - 5000, 9000);
	STRING("rep lodsl", end - 1001, memory, 400);
	STRING("repe cmpsb", memory, end - 100, 200);
	STRING("repe scasl", memory, end - 100, 200);
	STRING("std\n\trep movsb\n\tcld", memory + 3000, memory + 50, 200);
	__asm__ volatile("cld");
}

/* A data segment of 100 bytes in the LDT. */
static void segments(void)
{
	struct user_desc d = {
		.entry_number = 0,
		.base_addr = (unsigned)(uintptr_t)memory,
		.limit = 99,
		.seg_32bit = 1,
		.useable = 1,
	};
	if (syscall(SYS_modify_ldt, 1, &d, sizeof(d))) {
		perror("modify_ldt");
		return;
	}
	__asm__ volatile("mov %0, %%fs" : : "r"(7));
	FAULT("inside", {
		__asm__ volatile("movb %%fs:99, %%al\n\tmovl %%fs:96, %%eax" : : : "eax");
	});
	FAULT("byte past the limit", __asm__ volatile("movb %%fs:100, %%al" : : : "eax"));
	FAULT("dword over the limit", __asm__ volatile("movl %%fs:97, %%eax" : : : "eax"));
	d.contents = 1; /* expand down */
	syscall(SYS_modify_ldt, 1, &d, sizeof(d));
	__asm__ volatile("mov %0, %%fs" : : "r"(7));
	FAULT("expand-down inside", __asm__ volatile("movb %%fs:99, %%al" : : : "eax"));
	FAULT("expand-down above", __asm__ volatile("movb %%fs:100, %%al" : : : "eax"));
	d.contents = 0;
	d.read_exec_only = 1;
	syscall(SYS_modify_ldt, 1, &d, sizeof(d));
	__asm__ volatile("mov %0, %%fs" : : "r"(7));
	FAULT("write to read-only", __asm__ volatile("movb %%al, %%fs:0" : : "a"(0)));
	d.seg_not_present = 1;
	syscall(SYS_modify_ldt, 1, &d, sizeof(d));
	FAULT("not present", __asm__ volatile("mov %0, %%fs" : : "r"(7)));
	__asm__ volatile("mov %0, %%fs" : : "r"(0));
	FAULT("null segment", __asm__ volatile("movb %%fs:0, %%al" : : : "eax"));
}

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	static const int signals[] = {SIGSEGV, SIGFPE, SIGILL, SIGTRAP, SIGBUS};
	struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};
	for (unsigned n = 0; n < sizeof(signals) / sizeof(*signals); n++)
		sigaction(signals[n], &action, NULL);
	memory = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED || munmap(memory + 3 * PAGE, PAGE) || munmap(memory, PAGE)) {
		perror("mmap");
		return 1;
	}
	memory += PAGE;
	arithmetic();
	strings();
	segments();
	return 0;
}
