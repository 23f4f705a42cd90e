/* SPDX-License-Identifier: MIT */
/*
 * Runs 32-bit code on the host CPU, inside this 64-bit process.
 *
 * Linux keeps a 32-bit user code segment in the GDT. IRETQ enters it with all registers loaded; the
 * code lives below 4 GiB. It comes back by a far jump to the 64-bit code segment, or by an
 * exception: the signal handler reads the registers from the signal frame and resumes this file's
 * 64-bit code instead.
 *
 * The far jump leads to the trampoline, the one thing of the test that 32-bit code can reach: it is
 * read-only. All else, and what passes between, is addressed relative to RIP and lies above 4 GiB,
 * where stray stores do not come to. A timer ends a run that goes on and on.
 */
#include "tests/diff/diff.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

enum { LONG_CS = 0x33, TRAMPOLINE_EXIT = 8, TIMER_SECONDS = 5 };

/* The offsets are used in the assembly below. */
static struct passage {
	uint32_t gpr[8];   /* 0x00 */
	uint64_t frame[5]; /* 0x20: RIP CS RFLAGS RSP SS for IRETQ */
	uint64_t host_rsp; /* 0x48 */
	uint64_t eflags;   /* 0x50 */
	uint8_t pad[0x28]; /* 0x58 */
	uint8_t fx[512];   /* 0x80 */
} passage __asm__("native_passage") __attribute__((used, aligned(16)));
_Static_assert(offsetof(struct passage, fx) == 0x80, "passage layout");

static volatile struct outcome *current;
/* Who had the signals before: the software CPU, whose translated code may fault too. */
static struct sigaction old_action[NSIG];
static volatile bool inside;   /* generated code runs */
static volatile uint64_t runs; /* begun */
uint8_t *native_code, *native_data = (uint8_t *)(uintptr_t)DATA_BASE;

void native_enter(void);
extern char native_exit[], native_return[], native_end[];

__asm__(".pushsection .text\n"
	"	.set P, native_passage\n"
	"	.type native_enter, @function\n"
	"native_enter:\n"
	"	push %rbx\n"
	"	push %rbp\n"
	"	push %r12\n"
	"	push %r13\n"
	"	push %r14\n"
	"	push %r15\n"
	"	pushfq\n"
	"	mov %rsp, P + 0x48(%rip)\n"
	"	fxrstor P + 0x80(%rip)\n"
	"	mov $0x2B, %eax\n"
	"	mov %eax, %ds\n"
	"	mov %eax, %es\n"
	"	mov P + 0x00(%rip), %eax\n"
	"	mov P + 0x04(%rip), %ecx\n"
	"	mov P + 0x08(%rip), %edx\n"
	"	mov P + 0x0C(%rip), %ebx\n"
	"	mov P + 0x14(%rip), %ebp\n"
	"	mov P + 0x18(%rip), %esi\n"
	"	mov P + 0x1C(%rip), %edi\n"
	"	lea P + 0x20(%rip), %rsp\n"
	/* Code that strays into 64-bit mode finds no pointers of the test. */
	"	xor %r8d, %r8d\n"
	"	xor %r9d, %r9d\n"
	"	xor %r10d, %r10d\n"
	"	xor %r11d, %r11d\n"
	"	xor %r12d, %r12d\n"
	"	xor %r13d, %r13d\n"
	"	xor %r14d, %r14d\n"
	"	xor %r15d, %r15d\n"
	"	iretq\n"
	"native_exit:\n" /* by a far jump: everything still holds the code's values */
	"	mov %eax, P + 0x00(%rip)\n"
	"	mov %ecx, P + 0x04(%rip)\n"
	"	mov %edx, P + 0x08(%rip)\n"
	"	mov %ebx, P + 0x0C(%rip)\n"
	"	mov %esp, P + 0x10(%rip)\n"
	"	mov %ebp, P + 0x14(%rip)\n"
	"	mov %esi, P + 0x18(%rip)\n"
	"	mov %edi, P + 0x1C(%rip)\n"
	"	mov P + 0x48(%rip), %rsp\n"
	"	pushfq\n"
	"	popq P + 0x50(%rip)\n"
	"	fxsave P + 0x80(%rip)\n"
	"	fninit\n"
	"native_return:\n"
	"	popfq\n"
	"	pop %r15\n"
	"	pop %r14\n"
	"	pop %r13\n"
	"	pop %r12\n"
	"	pop %rbp\n"
	"	pop %rbx\n"
	"	ret\n"
	"native_end:\n"
	"	.size native_enter, . - native_enter\n"
	".popsection\n");

enum { GREG_RFLAGS_HOST = 0x202, FX_CW_INIT = 0x37F, MXCSR_INIT = 0x1F80 };

static bool is_native_enter(uintptr_t rip)
{
	return rip >= (uintptr_t)native_enter && rip < (uintptr_t)native_end;
}

/* The kernel leaves AC as the code had it, and C code accesses misaligned data. */
static inline void clear_ac(void)
{
	__asm__ volatile("lea -128(%%rsp), %%rsp\n\tpushfq\n\tandl $~0x40000, "
			 "(%%rsp)\n\tpopfq\n\tlea 128(%%rsp), %%rsp"
			 :
			 :
			 : "memory", "cc");
}

static bool in_32_bit_code(const ucontext_t *uc)
{
	return (uc->uc_mcontext.gregs[REG_CSGSFS] & 0xFFFF) == USER_CS;
}

/* Generated code runs, in whichever mode. */
static bool in_generated_code(const ucontext_t *uc)
{
	return inside && !is_native_enter((uintptr_t)uc->uc_mcontext.gregs[REG_RIP]);
}

/* The signal handler returns to native_enter()'s end; what the code left is in `passage`. */
static void end_run(ucontext_t *uc, bool astray)
{
	static const int reg[8] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX,
				   REG_RSP, REG_RBP, REG_RSI, REG_RDI};
	greg_t *g = uc->uc_mcontext.gregs;
	struct _libc_fpstate *fp = uc->uc_mcontext.fpregs;

	for (unsigned n = 0; n < 8; n++)
		passage.gpr[n] = (uint32_t)g[reg[n]];
	passage.eflags = (uint64_t)g[REG_EFL];
	passage.frame[0] = (uint64_t)g[REG_RIP];
	memcpy(passage.fx, fp, sizeof passage.fx);
	current->finished = false;
	current->astray = astray;
	current->vector = (unsigned)g[REG_TRAPNO];
	current->error = (uint32_t)g[REG_ERR];
	current->cr2 = (uint32_t)g[REG_CR2];
	g[REG_CSGSFS] = (g[REG_CSGSFS] & ~(greg_t)0xFFFF) | LONG_CS;
	g[REG_RIP] = (greg_t)(uintptr_t)native_return;
	g[REG_RSP] = (greg_t)passage.host_rsp;
	g[REG_EFL] = GREG_RFLAGS_HOST;
	fp->cwd = FX_CW_INIT;
	fp->swd = 0;
	fp->ftw = 0;
	fp->mxcsr = MXCSR_INIT;
}

static void on_signal(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	clear_ac();
	if (in_32_bit_code(uc))
		end_run(uc, false);
	else if (in_generated_code(uc))
		end_run(uc, true);
	else if (old_action[sig].sa_flags & SA_SIGINFO)
		old_action[sig].sa_sigaction(sig, info, context);
	else
		sigaction(sig, &old_action[sig], NULL); /* a bug in the test itself */
}

/* Every few seconds of CPU time: a run that was there the last time does not end by itself. */
static void on_timer(int sig, siginfo_t *info, void *context)
{
	static uint64_t run_before;
	ucontext_t *uc = context;

	clear_ac();
	if (runs == run_before && in_generated_code(uc))
		end_run(uc, true);
	run_before = runs;
}

void native_run(struct machine_state *s, struct outcome *out)
{
	static const uint32_t mxcsr = MXCSR_INIT;

	memcpy(passage.gpr, s->gpr, sizeof s->gpr);
	passage.frame[0] = s->eip;
	passage.frame[1] = USER_CS;
	passage.frame[2] = s->eflags;
	passage.frame[3] = s->gpr[R_ESP];
	passage.frame[4] = USER_DS;
	memcpy(passage.fx, s->fx, sizeof s->fx);
	*out = (struct outcome){.finished = true};
	current = out;
	runs++;
	inside = true;
	native_enter();
	inside = false;
	__asm__ volatile("ldmxcsr %0" : : "m"(mxcsr));
	memcpy(s->gpr, passage.gpr, sizeof s->gpr);
	s->eip = out->finished ? CODE_EXIT : (uint32_t)passage.frame[0];
	s->eflags = (uint32_t)passage.eflags;
	memcpy(s->fx, passage.fx, sizeof s->fx);
}

static void *map_fixed(uint32_t at, size_t size, int prot, int flags, int fd)
{
	void *want = (void *)(uintptr_t)at;
	void *p = mmap(want, size, prot, flags | MAP_FIXED_NOREPLACE, fd, 0);

	return p == want ? p : NULL;
}

bool native_open(void)
{
	static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
	struct sigaction action = {.sa_sigaction = on_signal,
				   .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
	struct sigaction timer_action = {.sa_sigaction = on_timer,
					 .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
	const struct itimerval timer = {{TIMER_SECONDS, 0}, {TIMER_SECONDS, 0}};
	static uint8_t signal_stack[1 << 16];
	stack_t stack = {.ss_size = sizeof(signal_stack)};
	int fd = memfd_create("code", 0);
	uint8_t *trampoline, *leave;
	uint32_t exit_at = TRAMPOLINE;

	if ((uintptr_t)&passage <= UINT32_MAX) {
		fprintf(stderr, "diff: the program must be position-independent, to lie above the "
				"4 GiB that its 32-bit code reaches\n");
		return false;
	}
	if (fd < 0 || ftruncate(fd, CODE_SIZE) < 0 ||
	    !map_fixed(CODE_BASE, CODE_SIZE, PROT_READ | PROT_EXEC, MAP_SHARED, fd) ||
	    !map_fixed(DATA_BASE, DATA_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		       -1) ||
	    mprotect((void *)(uintptr_t)WRITTEN_CODE, WRITTEN_CODE_SIZE,
		     PROT_READ | PROT_WRITE | PROT_EXEC) < 0 ||
	    !(trampoline = map_fixed(TRAMPOLINE, TRAMPOLINE_SIZE, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS, -1))) {
		perror("cannot map memory below 4 GiB");
		return false;
	}
	native_code = mmap(NULL, CODE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	stack.ss_sp = signal_stack;
	if (native_code == MAP_FAILED)
		return false;
	/* TRAMPOLINE: jmp *TRAMPOLINE_EXIT(TRAMPOLINE), reached in 64-bit mode. */
	memcpy(trampoline, (uint8_t[]){0xFF, 0x24, 0x25}, 3);
	memcpy(trampoline + 3, &(uint32_t){TRAMPOLINE + TRAMPOLINE_EXIT}, 4);
	memcpy(trampoline + TRAMPOLINE_EXIT, &(uint64_t){(uintptr_t)native_exit}, 8);
	if (mprotect(trampoline, TRAMPOLINE_SIZE, PROT_READ | PROT_EXEC) < 0)
		return false;
	/* CODE_EXIT: ljmp $LONG_CS, $TRAMPOLINE. */
	leave = native_code + (CODE_EXIT - CODE_BASE);
	leave[0] = 0xEA;
	memcpy(leave + 1, &exit_at, 4);
	leave[5] = LONG_CS;
	leave[6] = 0;
	sigaltstack(&stack, NULL);
	sigaddset(&action.sa_mask, SIGVTALRM);
	for (size_t n = 0; n < sizeof signals / sizeof signals[0]; n++)
		sigaction(signals[n], &action, &old_action[signals[n]]);
	sigaction(SIGVTALRM, &timer_action, NULL);
	setitimer(ITIMER_VIRTUAL, &timer, NULL);
	return true;
}
