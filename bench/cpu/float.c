/* SPDX-License-Identifier: MIT */
/*
 * Floating point as compilers make it, built twice: with UNIT=x87 for the x87, with UNIT=sse for scalar SSE2
 * (-mfpmath=sse). n-body, Mandelbrot set and spectral norm are the known benchmark problems; each checks itself by
 * a value that mathematics gives.
 */
#include "row.h"
#include <math.h>

#define X87 (UNIT == 387)

static uint32_t hash_double(uint32_t hash, double d)
{
	return hash_bytes(hash, &d, sizeof(d));
}

/* ---- n-body: five bodies, symplectic integrator; the energy must stay ---- */

enum { BODIES = 5 };
struct body {
	double x[3], v[3], mass;
};

static double energy(const struct body *b)
{
	double e = 0;
	for (int i = 0; i < BODIES; i++) {
		e += 0.5 * b[i].mass *
		     (b[i].v[0] * b[i].v[0] + b[i].v[1] * b[i].v[1] + b[i].v[2] * b[i].v[2]);
		for (int j = i + 1; j < BODIES; j++) {
			double d2 = 0;
			for (int k = 0; k < 3; k++) {
				double d = b[i].x[k] - b[j].x[k];
				d2 += d * d;
			}
			e -= b[i].mass * b[j].mass / sqrt(d2);
		}
	}
	return e;
}

static void advance(struct body *b, double dt)
{
	for (int i = 0; i < BODIES; i++)
		for (int j = i + 1; j < BODIES; j++) {
			double dx = b[i].x[0] - b[j].x[0], dy = b[i].x[1] - b[j].x[1],
			       dz = b[i].x[2] - b[j].x[2];
			double d2 = dx * dx + dy * dy + dz * dz;
			double mag = dt / (d2 * sqrt(d2));
			b[i].v[0] -= dx * b[j].mass * mag;
			b[i].v[1] -= dy * b[j].mass * mag;
			b[i].v[2] -= dz * b[j].mass * mag;
			b[j].v[0] += dx * b[i].mass * mag;
			b[j].v[1] += dy * b[i].mass * mag;
			b[j].v[2] += dz * b[i].mass * mag;
		}
	for (int i = 0; i < BODIES; i++)
		for (int k = 0; k < 3; k++)
			b[i].x[k] += dt * b[i].v[k];
}

static uint32_t nbody_once(void)
{
	/* A heavy body and four on circles around it, radius r, speed sqrt(mass / r). */
	struct body b[BODIES] = {{.mass = 40}};
	for (int i = 1; i < BODIES; i++) {
		double r = 2.0 + 3.0 * i;
		b[i].x[i & 1] = r;
		b[i].x[2] = 0.1 * i;
		b[i].v[!(i & 1)] = i & 2 ? -sqrt(40 / r) : sqrt(40 / r);
		b[i].mass = 0.01 * i;
	}
	double before = energy(b);
	for (int n = 0; n < 1500; n++)
		advance(b, 0.001);
	double after = energy(b);
	if (!(fabs(after - before) < fabs(before) * 1e-6))
		fail("nbody: energy went from %.12g to %.12g", before, after);
	uint32_t hash = HASH_START;
	for (int i = 0; i < BODIES; i++)
		hash = hash_bytes(hash, &b[i], sizeof(b[i]));
	return hash;
}

/* ---- Mandelbrot set, 64x64 points; it is symmetric to the real axis ---- */

static uint32_t mandelbrot_once(void)
{
	enum { SIDE = 64, LIMIT = 60 };
	uint32_t hash = HASH_START, upper = 0, lower = 0;
	for (int y = 0; y < SIDE; y++)
		for (int x = 0; x < SIDE; x++) {
			double cr = -2 + 2.5 * x / SIDE, ci = (2 * y + 1 - SIDE) * (1.25 / SIDE),
			       zr = 0, zi = 0;
			int n = 0;
			for (; n < LIMIT; n++) {
				double r2 = zr * zr, i2 = zi * zi;
				if (r2 + i2 > 4)
					break;
				zi = 2 * zr * zi + ci;
				zr = r2 - i2 + cr;
			}
			*(y < SIDE / 2 ? &upper : &lower) += (uint32_t)n;
			hash = hash_word(hash, (uint32_t)n);
		}
	if (upper != lower || upper < SIDE * SIDE)
		fail("mandelbrot: %u above the axis, %u below", upper, lower);
	return hash;
}

/* ---- Spectral norm of the matrix 1 / ((i + j) (i + j + 1) / 2 + i + 1): 1.274224152... ---- */

enum { NORM = 48 };

static double cell(int i, int j)
{
	return 1.0 / ((i + j) * (i + j + 1) / 2 + i + 1);
}

static void times(const double *v, double *out, int transposed)
{
	for (int i = 0; i < NORM; i++) {
		double sum = 0;
		for (int j = 0; j < NORM; j++)
			sum += (transposed ? cell(j, i) : cell(i, j)) * v[j];
		out[i] = sum;
	}
}

static uint32_t spectral_once(void)
{
	double u[NORM], v[NORM], t[NORM], vbv = 0, vv = 0;
	for (int i = 0; i < NORM; i++)
		u[i] = 1;
	for (int n = 0; n < 10; n++) {
		times(u, t, 0);
		times(t, v, 1);
		times(v, t, 0);
		times(t, u, 1);
	}
	for (int i = 0; i < NORM; i++) {
		vbv += u[i] * v[i];
		vv += v[i] * v[i];
	}
	double norm = sqrt(vbv / vv);
	if (!(fabs(norm - 1.2742) < 1e-3))
		fail("spectral: the norm is %.12g", norm);
	return hash_double(HASH_START, norm);
}

#if X87

/* ---- The x87's transcendental functions, rounded to float: processors differ in the last bits ---- */

#define UNARY(name, instructions)                                                                  \
	static __attribute__((noinline)) long double name(long double x)                           \
	{                                                                                          \
		__asm__ volatile(instructions : "+t"(x));                                          \
		return x;                                                                          \
	}
UNARY(x_sin, "fsin")
UNARY(x_cos, "fcos")
UNARY(x_tan, "fptan\n\tfstp %%st(0)")
UNARY(x_atan, "fld1\n\tfpatan")
UNARY(x_log, "fldln2\n\tfxch\n\tfyl2x")
/* Not inlined: they need registers that the compiler may have filled. 2^x = 2^round(x) (1 + (2^(x - round(x)) - 1)) */
UNARY(x_exp2, "fld %%st(0)\n\tfrndint\n\tfsubr %%st(0), "
	      "%%st(1)\n\tfxch\n\tf2xm1\n\tfld1\n\tfaddp\n\tfscale\n\tfstp %%st(1)")

static uint32_t transcendental_once(void)
{
	uint32_t hash = HASH_START;
	for (int n = 1; n <= 1500; n++) {
		long double x = n * 0.0093L;
		long double s = x_sin(x), c = x_cos(x), e = x_exp2(x), l = x_log(x), a = x_atan(x),
			    t = x_tan(x);
		if (!(fabsl(s * s + c * c - 1) < 1e-14L) ||
		    !(fabsl(x_log(e) / x_log(2) - x) < 1e-14L * (1 + x)) ||
		    !(fabsl(x_tan(a) / x - 1) < 1e-13L) || !(fabsl(t * c - s) < 1e-13L * fabsl(t)))
			fail("transcendental: x %.18Lg sin %.18Lg cos %.18Lg 2^x %.18Lg atan "
			     "%.18Lg tan %.18Lg",
			     x, s, c, e, a, t);
		float rounded[] = {(float)s, (float)c, (float)e, (float)l, (float)a, (float)t};
		hash = hash_bytes(hash, rounded, sizeof(rounded));
	}
	return hash;
}

/* ---- Conversions, comparisons and control words, as C programs need them ---- */

static uint32_t x87_mixed_once(void)
{
	uint32_t hash = HASH_START;
	volatile double narrow;
	for (int n = 1; n <= 8000; n++) {
		double d = n * 0.37 - 1000;
		int64_t wide = (int64_t)(d * 1e6);
		int32_t i = (int32_t)d; /* the compiler switches the rounding for each */
		float f = (float)d;
		narrow = d / 3;
		if (i - d > 1 || d - i > 1 || (d > 0) != (f > 0))
			fail("x87-mixed: %g became %d", d, i);
		hash = hash_word(hash, (uint32_t)i ^ (uint32_t)wide ^ (narrow > f ? 1 : 2));
		hash = hash_double(hash, floor(narrow) + ceil(d));
	}
	return hash;
}

const struct row x87_rows[] = {
	{"x87", "x87-nbody", "n-body problem", NULL, nbody_once, NULL},
	{"x87", "x87-mandelbrot", "Mandelbrot set", NULL, mandelbrot_once, NULL},
	{"x87", "x87-spectral", "spectral norm", NULL, spectral_once, NULL},
	{"x87", "x87-transcend", "sine, cosine, tangent, logarithm, power", NULL,
	 transcendental_once, NULL},
	{"x87", "x87-mixed", "conversions, comparisons, rounding control", NULL, x87_mixed_once,
	 NULL},
	{NULL, NULL, NULL, NULL, NULL, NULL},
};

#else

const struct row scalar_sse_rows[] = {
	{"sse2", "sse2-nbody", "n-body problem, scalar double", NULL, nbody_once, NULL},
	{"sse2", "sse2-mandelbrot", "Mandelbrot set, scalar double", NULL, mandelbrot_once, NULL},
	{"sse2", "sse2-spectral", "spectral norm, scalar double", NULL, spectral_once, NULL},
	{NULL, NULL, NULL, NULL, NULL, NULL},
};

#endif
