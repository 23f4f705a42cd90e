/* SPDX-License-Identifier: MIT */
/*
 * Single steps and hardware breakpoints by ptrace(): a child runs a known sequence, its parent
 * prints each EIP (relative to the sequence) and what the debug status register says.
 */
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

extern const uint8_t sequence_start[], sequence_store[], sequence_end[];
static volatile uint32_t variable;
static uint8_t text[16] __attribute__((aligned(4)));

/* Of all kinds: branches, a string instruction, flags pushed and popped, a system call. */
static __attribute__((noinline)) void sequence(void)
{
	void *to = text;
	unsigned count = 3;
	__asm__ volatile(".global sequence_start, sequence_store, sequence_end\n"
			 "sequence_start:\n\t"
			 "mov $3, %%eax\n"
			 "1:\tdec %%eax\n\t"
			 "jnz 1b\n\t"
			 "rep stosb\n\t"
			 "pushf\n\tpopf\n\t"
			 "push %%ds\n\tpop %%ds\n\t"
			 "mov %%ss, %%eax\n\tmov %%eax, %%ss\n\tnop\n\t"
			 "mov $20, %%eax\n\tint $0x80\n"
			 "sequence_store:\n\t"
			 "movl $5, variable\n\t"
			 "nop\n\t"
			 "movw $6, variable+2\n\t"
			 "call 2f\n\tjmp 3f\n2:\tret\n3:\tcpuid\n"
			 "sequence_end:\n\tnop"
			 : "+D"(to), "+c"(count)
			 :
			 : "eax", "ebx", "edx", "memory", "cc");
}

static void set_debug(pid_t child, unsigned n, uint32_t value)
{
	if (ptrace(PTRACE_POKEUSER, child, (void *)(offsetof(struct user, u_debugreg) + 4 * n),
		   (void *)(uintptr_t)value))
		perror("POKEUSER");
}

static uint32_t get_debug(pid_t child, unsigned n)
{
	return (uint32_t)ptrace(PTRACE_PEEKUSER, child,
				(void *)(offsetof(struct user, u_debugreg) + 4 * n), NULL);
}

static uint32_t eip(pid_t child)
{
	struct user_regs_struct regs;
	ptrace(PTRACE_GETREGS, child, NULL, &regs);
	return (uint32_t)regs.eip;
}

static bool wait_trap(pid_t child)
{
	int status;
	return waitpid(child, &status, 0) == child && WIFSTOPPED(status);
}

int main(void)
{
	pid_t child = fork();
	if (child == 0) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		for (;;)
			sequence();
	}
	uint32_t start = (uint32_t)(uintptr_t)sequence_start;
	if (!wait_trap(child))
		return 1;

	/* To the start by an instruction breakpoint, twice: it must not hit again on resuming. */
	set_debug(child, 0, start);
	set_debug(child, 7, 1);
	for (int n = 0; n < 2; n++) {
		ptrace(PTRACE_CONT, child, NULL, NULL);
		wait_trap(child);
		printf("breakpoint at %d, status %x\n", (int)(eip(child) - start),
		       get_debug(child, 6) & 0xF);
	}

	/* Data breakpoints: on writes of four bytes, and on accesses by a string instruction. */
	set_debug(child, 1, (uint32_t)(uintptr_t)&variable);
	set_debug(child, 7, 1 << 2 | 1 << 20 | 3 << 22);
	for (int n = 0; n < 4; n++) {
		ptrace(PTRACE_CONT, child, NULL, NULL);
		wait_trap(child);
		printf("data at %d, status %x\n", (int)(eip(child) - start),
		       get_debug(child, 6) & 0xF);
	}
	set_debug(child, 2, (uint32_t)(uintptr_t)text);
	set_debug(child, 7, 1 << 4 | 3 << 24 | 3 << 26);
	for (int n = 0; n < 4; n++) {
		ptrace(PTRACE_CONT, child, NULL, NULL);
		wait_trap(child);
		printf("string at %d, status %x\n", (int)(eip(child) - start),
		       get_debug(child, 6) & 0xF);
	}

	/* Steps last: POPF leaves the trap flag set that PUSHF saw. */
	set_debug(child, 0, start);
	set_debug(child, 7, 1);
	ptrace(PTRACE_CONT, child, NULL, NULL);
	wait_trap(child);
	set_debug(child, 7, 0);
	printf("steps");
	for (int n = 0; n < 60 && eip(child) != (uint32_t)(uintptr_t)sequence_end; n++) {
		ptrace(PTRACE_SINGLESTEP, child, NULL, NULL);
		wait_trap(child);
		printf(" %d", (int)(eip(child) - start));
	}
	printf("\n");
	kill(child, SIGKILL);
	wait_trap(child);
	return 0;
}
