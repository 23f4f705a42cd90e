/* SPDX-License-Identifier: MIT */
/*
 * A bytecode interpreter, dispatched by a switch (one indirect jump for all instructions) and by computed goto (one
 * after each). Its program computes the longest Collatz chain below a bound, with calls and memory.
 */
#include "row.h"

enum op { PUSH, LOAD, STORE, ADD, MUL, SHR, AND, LESS, JUMP, JUMP_ZERO, CALL, RETURN, DROP, HALT };

enum { V_N, V_X, V_LENGTH, V_BEST, V_BEST_N, VARIABLES, BOUND = 700 };

/* Two words an instruction: operation, operand. Addresses count instructions. */
static const int32_t program[][2] = {
	/* for (n = 1; n < BOUND; n++) { */
	{PUSH, 1},
	{STORE, V_N},
	{LOAD, V_N}, /* 2 */
	{PUSH, BOUND},
	{LESS, 0},
	{JUMP_ZERO, 20},
	{CALL, 21},
	/* if (best < length) { best = length; best_n = n; } */
	{LOAD, V_BEST},
	{LOAD, V_LENGTH},
	{LESS, 0},
	{JUMP_ZERO, 15},
	{LOAD, V_LENGTH},
	{STORE, V_BEST},
	{LOAD, V_N},
	{STORE, V_BEST_N},
	{LOAD, V_N}, /* 15 */
	{PUSH, 1},
	{ADD, 0},
	{STORE, V_N},
	{JUMP, 2},
	{HALT, 0}, /* 20 */
	/* x = n; length = 0; while (1 < x) { length++; x = x & 1 ? 3 * x + 1 : x >> 1; } */
	{LOAD, V_N}, /* 21 */
	{STORE, V_X},
	{PUSH, 0},
	{STORE, V_LENGTH},
	{PUSH, 1}, /* 25 */
	{LOAD, V_X},
	{LESS, 0},
	{JUMP_ZERO, 46},
	{LOAD, V_LENGTH},
	{PUSH, 1},
	{ADD, 0},
	{STORE, V_LENGTH},
	{LOAD, V_X},
	{PUSH, 1},
	{AND, 0},
	{JUMP_ZERO, 42},
	{LOAD, V_X},
	{PUSH, 3},
	{MUL, 0},
	{PUSH, 1},
	{JUMP, 47},
	{LOAD, V_X}, /* 42 */
	{SHR, 1},
	{STORE, V_X},
	{JUMP, 25},
	{RETURN, 0}, /* 46 */
	{ADD, 0},    /* 47 */
	{STORE, V_X},
	{JUMP, 25},
};

static uint32_t result(const int32_t *variables)
{
	if (variables[V_BEST_N] != 649 || variables[V_BEST] != 144)
		fail("interpreter: %d has a chain of %d", variables[V_BEST_N], variables[V_BEST]);
	return hash_bytes(HASH_START, variables, VARIABLES * sizeof(variables[0]));
}

static __attribute__((noinline)) uint32_t by_switch(const int32_t (*code)[2])
{
	int32_t stack[16], *sp = stack, variables[VARIABLES] = {0};
	const int32_t(*returns[8])[2], (**rp)[2] = returns;
	const int32_t(*ip)[2] = code;
	for (;;) {
		int32_t arg = (*ip)[1];
		switch ((enum op)(*ip++)[0]) {
		case PUSH: *sp++ = arg; break;
		case LOAD: *sp++ = variables[arg]; break;
		case STORE: variables[arg] = *--sp; break;
		case ADD:
			sp--;
			sp[-1] += *sp;
			break;
		case MUL:
			sp--;
			sp[-1] *= *sp;
			break;
		case SHR: sp[-1] >>= arg; break;
		case AND:
			sp--;
			sp[-1] &= *sp;
			break;
		case LESS:
			sp--;
			sp[-1] = sp[-1] < *sp;
			break;
		case JUMP: ip = code + arg; break;
		case JUMP_ZERO:
			if (!*--sp)
				ip = code + arg;
			break;
		case CALL:
			*rp++ = ip;
			ip = code + arg;
			break;
		case RETURN: ip = *--rp; break;
		case DROP: sp--; break;
		case HALT: return result(variables);
		}
	}
}

static __attribute__((noinline)) uint32_t by_goto(const int32_t (*code)[2])
{
	static const void *const labels[] = {&&push, &&load, &&store, &&add,  &&mul,
					     &&shr,  &&and,  &&less,  &&jump, &&zero,
					     &&call, &&ret,  &&drop,  &&halt};
	int32_t stack[16], *sp = stack, variables[VARIABLES] = {0}, arg;
	const int32_t(*returns[8])[2], (**rp)[2] = returns;
	const int32_t(*ip)[2] = code;
#define NEXT                                                                                       \
	do {                                                                                       \
		arg = (*ip)[1];                                                                    \
		goto *labels[(*ip++)[0]];                                                          \
	} while (0)
	NEXT;
push:
	*sp++ = arg;
	NEXT;
load:
	*sp++ = variables[arg];
	NEXT;
store:
	variables[arg] = *--sp;
	NEXT;
add:
	sp--;
	sp[-1] += *sp;
	NEXT;
mul:
	sp--;
	sp[-1] *= *sp;
	NEXT;
shr:
	sp[-1] >>= arg;
	NEXT;
	and : sp--;
	sp[-1] &= *sp;
	NEXT;
less:
	sp--;
	sp[-1] = sp[-1] < *sp;
	NEXT;
jump:
	ip = code + arg;
	NEXT;
zero:
	if (!*--sp)
		ip = code + arg;
	NEXT;
call:
	*rp++ = ip;
	ip = code + arg;
	NEXT;
ret:
	ip = *--rp;
	NEXT;
drop:
	sp--;
	NEXT;
halt:
	return result(variables);
#undef NEXT
}

static uint32_t switch_once(void)
{
	return by_switch(program);
}

static uint32_t goto_once(void)
{
	return by_goto(program);
}

const struct row interpreter_rows[] = {
	{"integer", "interp-switch", "bytecode interpreter, dispatch by switch", NULL, switch_once,
	 NULL},
	{"integer", "interp-goto", "bytecode interpreter, computed goto", NULL, goto_once, NULL},
	{NULL, NULL, NULL, NULL, NULL, NULL},
};
