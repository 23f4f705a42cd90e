/* SPDX-License-Identifier: MIT */
/*
 * Random values: integers at the edges, floating-point numbers of every class (pseudo-denormals and
 * unnormals included), registers and memory full of them.
 */
#include "tests/diff/diff.h"
#include <string.h>

uint64_t random_state = 1;

/* Numbers that tend to find errors. */
uint32_t interesting(void)
{
	static const uint32_t v[] = {0,       1,          2,          0x7F,       0x80,
				     0xFF,    0x100,      0x7FFF,     0x8000,     0xFFFF,
				     0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFE,
				     31,      32,         33};

	return chance(40) ? v[random_below(sizeof v / sizeof v[0])] : random32();
}

uint32_t random_mxcsr(void)
{
	uint32_t v = 0x1F80;

	if (chance(60))
		return v;
	v |= random_below(4) << 13; /* rounding */
	if (chance(30))
		v |= 0x40; /* denormals are zeros */
	if (chance(30))
		v |= 0x8000; /* flush to zero */
	if (chance(20))
		v |= random_below(64);
	if (chance(30)) /* unmasked exceptions */
		v &= ~(random_below(64) << 7);
	return v;
}

uint16_t random_control_word(void)
{
	if (chance(40))
		return 0x37F;
	return (uint16_t)(0x40 | random_below(16) << 8 | (chance(70) ? 0x3F : random_below(64)));
}

/* An 80-bit number of any class, pseudo-classes included. */
static void random_m80(uint8_t *p)
{
	static const uint16_t exponents[] = {0,      1,      0x3FFE, 0x3FFF, 0x4000, 0x401D,
					     0x401E, 0x403D, 0x403E, 0x403F, 0x7FFE, 0x7FFF,
					     0x3F80, 0x3F81, 0x407E, 0x43FE, 0x3C01};
	static const uint64_t significands[] = {0,
						UINT64_C(1) << 63,
						UINT64_C(3) << 62,
						UINT64_MAX,
						1,
						UINT64_C(0x8000000000000001),
						UINT64_C(0xA000000000000000)};
	uint16_t exponent = chance(60) ? exponents[random_below(17)]
				       : (uint16_t)(chance(70) ? 0x3FFF - 40 + random_below(80)
							       : random_below(0x8000));
	uint64_t significand = chance(40) ? significands[random_below(7)]
					  : (uint64_t)random32() << 32 | random32();

	if (!chance(5) && exponent)
		significand |= UINT64_C(1) << 63;
	if (chance(20))
		significand &= UINT64_C(0xFFFFFF) << 40;
	exponent |= (uint16_t)(chance(50) << 15);
	memcpy(p, &significand, 8);
	memcpy(p + 8, &exponent, 2);
}

static uint32_t random_float(void)
{
	static const uint32_t v[] = {0,          0x80000000, 0x3F800000, 0xBF800000, 0x7F800000,
				     0xFF800000, 0x7FC00000, 0x7F800001, 0xFFA00000, 1,
				     0x807FFFFF, 0x00800000, 0x7F7FFFFF, 0x4F000000, 0xCF000000,
				     0x4EFFFFFF, 0x5F000000, 0x3F000000, 0x3FC00000};

	if (chance(40))
		return v[random_below(sizeof v / sizeof v[0])];
	if (chance(60))
		return random_below(2) << 31 | (0x70 + random_below(32)) << 23 | (random32() >> 9);
	return random32();
}

static uint64_t random_double(void)
{
	static const uint64_t v[] = {0,
				     UINT64_C(1) << 63,
				     0x3FF0000000000000,
				     0x7FF0000000000000,
				     0xFFF0000000000000,
				     0x7FF8000000000000,
				     0x7FF0000000000001,
				     1,
				     0x000FFFFFFFFFFFFF,
				     0x0010000000000000,
				     0x7FEFFFFFFFFFFFFF,
				     0x41E0000000000000,
				     0xC1E0000000000000,
				     0x41DFFFFFFFC00000,
				     0x43E0000000000000,
				     0x3FE0000000000000,
				     0x47EFFFFFF0000000,
				     0x3690000000000000,
				     0x3FF8000000000000};

	if (chance(40))
		return v[random_below(sizeof v / sizeof v[0])];
	if (chance(60))
		return (uint64_t)random_below(2) << 63 |
		       (uint64_t)(0x3E0 + random_below(64)) << 52 |
		       (((uint64_t)random32() << 32 | random32()) >> 12);
	return (uint64_t)random32() << 32 | random32();
}

static void random_16_bytes(uint8_t *p)
{
	uint64_t d[2];
	uint32_t f[4];

	switch (random_below(5)) {
	case 0:
	case 1:
		for (unsigned n = 0; n < 4; n++)
			f[n] = random_float();
		memcpy(p, f, 16);
		break;
	case 2:
	case 3:
		d[0] = random_double();
		d[1] = random_double();
		memcpy(p, d, 16);
		break;
	default:
		for (unsigned n = 0; n < 4; n++)
			f[n] = interesting();
		memcpy(p, f, 16);
	}
}

void generate_data(uint8_t *data, size_t size)
{
	for (size_t at = 0; at + 16 <= size; at += 16) {
		random_16_bytes(data + at);
		if (chance(15)) {
			random_m80(data + at);
		} else if (chance(5)) { /* a packed decimal, valid or nearly */
			for (unsigned n = 0; n < 9; n++)
				data[at + n] = (uint8_t)(random_below(10) << 4 | random_below(10));
			data[at + 9] = chance(50) ? 0x80 : 0;
		}
	}
}

void generate_state(struct machine_state *s)
{
	uint16_t cw = random_control_word(), sw = (uint16_t)(random_below(8) << 11);
	uint32_t mxcsr = random_mxcsr();

	memset(s, 0, sizeof *s);
	for (unsigned n = 0; n < 8; n++)
		s->gpr[n] = interesting();
	s->gpr[R_EBX] = DATA_BASE + random_below(DATA_USED);
	s->gpr[R_ESI] = DATA_BASE + random_below(DATA_USED);
	s->gpr[R_EDI] = DATA_BASE + random_below(DATA_USED);
	s->gpr[R_EBP] = STACK_TOP - 64;
	s->gpr[R_ESP] = STACK_TOP - 4 * random_below(64);
	s->eip = CODE_BASE;
	s->eflags = FL_1 | FL_IF | (random32() & FL_ARITH) | (chance(10) ? FL_DF : 0);
	if (chance(30))
		sw |= random32() & 0x4700;
	if (chance(20)) /* flags whose exceptions are masked */
		sw |= (uint16_t)(random_below(64) & cw & 0x3F);
	memcpy(s->fx + 0, &cw, 2);
	memcpy(s->fx + 2, &sw, 2);
	s->fx[4] = chance(30) ? (uint8_t)random32() : chance(50) ? 0 : 0x0F << random_below(5);
	memcpy(s->fx + 24, &mxcsr, 4);
	for (unsigned n = 0; n < 8; n++) {
		random_m80(s->fx + 32 + 16 * n);
		random_16_bytes(s->fx + 160 + 16 * n);
	}
}
