/* SPDX-License-Identifier: MIT */
/*
 * Packed arithmetic: doubles and floats with SSE2, integers with SSE2 and MMX. Each result is compared with
 * the same computation one element at a time.
 */
#include "row.h"
#include <emmintrin.h>
#include <mmintrin.h>

enum { COUNT = 2048 };

/* ---- Doubles: y = a x + y and a dot product, in pairs ---- */

static double dx[COUNT] __attribute__((aligned(16))), dy[COUNT] __attribute__((aligned(16)));

static void double_setup(void)
{
	for (int n = 0; n < COUNT; n++) {
		dx[n] = n * 0.25 - 100;
		dy[n] = 1000 - n * 0.5;
	}
}

static uint32_t double_once(void)
{
	double sum[2], expected = 0;
	__m128d total = _mm_setzero_pd();
	for (int pass = 1; pass <= 40; pass++) {
		const __m128d a = _mm_set1_pd(pass * 0.5);
		total = _mm_setzero_pd();
		for (int n = 0; n < COUNT; n += 2) {
			__m128d x = _mm_load_pd(dx + n), y = _mm_load_pd(dy + n);
			y = _mm_add_pd(_mm_mul_pd(a, x), y);
			y = _mm_max_pd(y, _mm_sub_pd(x, a));
			total = _mm_add_pd(total, _mm_mul_pd(y, _mm_shuffle_pd(x, x, 1)));
		}
	}
	_mm_storeu_pd(sum, total);
	for (int n = 0; n < COUNT;
	     n++) { /* all values are exact in 53 bits: the order does not matter */
		double y = 20 * dx[n] + dy[n];
		y = y > dx[n] - 20 ? y : dx[n] - 20;
		expected += y * dx[n ^ 1];
	}
	if (sum[0] + sum[1] != expected)
		fail("sse2-double: %.17g, not %.17g", sum[0] + sum[1], expected);
	return hash_bytes(HASH_START, sum, sizeof(sum));
}

/* ---- Floats: normalising vectors of three, by reciprocals and square roots; unaligned loads, shuffles ---- */

static float fx[COUNT + 4];

static void float_setup(void)
{
	uint32_t seed = 12;
	for (int n = 0; n < COUNT + 4; n++)
		fx[n] = (float)(int32_t)next_random(&seed) / 65536;
}

static uint32_t float_once(void)
{
	uint32_t hash = HASH_START;
	float out[4];
	for (int pass = 0; pass < 8; pass++)
		for (int n = 0; n + 3 <= COUNT; n += 3) {
			__m128 v = _mm_loadu_ps(fx + n);
			v = _mm_and_ps(v, _mm_castsi128_ps(_mm_set_epi32(0, -1, -1, -1)));
			__m128 square = _mm_mul_ps(v, v);
			__m128 sum = _mm_add_ps(
				square, _mm_shuffle_ps(square, square, _MM_SHUFFLE(2, 3, 0, 1)));
			sum = _mm_add_ps(sum, _mm_shuffle_ps(sum, sum, _MM_SHUFFLE(1, 0, 3, 2)));
			v = _mm_div_ps(v, _mm_sqrt_ps(_mm_max_ps(sum, _mm_set1_ps(1e-20f))));
			_mm_storeu_ps(out, v);
			float length = out[0] * out[0] + out[1] * out[1] + out[2] * out[2];
			if (!(length > 0.99999f && length < 1.00001f))
				fail("sse2-float: vector %d has length %g", n, (double)length);
			hash = hash_word(
				hash,
				(uint32_t)_mm_movemask_ps(v) |
					(uint32_t)_mm_cvtss_si32(_mm_mul_ss(v, _mm_set_ss(1e6f)))
						<< 4);
		}
	return hash;
}

/* ---- Bytes and words: sums of absolute differences, saturation, packing, compares ---- */

static uint8_t bx[COUNT * 4] __attribute__((aligned(16))),
	by[COUNT * 4] __attribute__((aligned(16)));
static uint32_t expected_sad, expected_blend;

static void bytes_setup(void)
{
	uint32_t seed = 13;
	for (int n = 0; n < COUNT * 4; n++) {
		bx[n] = (uint8_t)(next_random(&seed) >> 24);
		by[n] = (uint8_t)(next_random(&seed) >> 24);
	}
	expected_sad = expected_blend = 0;
	for (int n = 0; n < COUNT * 4; n++) {
		int blend = (bx[n] * 3 + by[n] * 5) >> 3;
		expected_sad += (uint32_t)(bx[n] > by[n] ? bx[n] - by[n] : by[n] - bx[n]);
		expected_blend += (uint32_t)(blend > 200 ? 0 : blend);
	}
}

static uint32_t integers_once(void)
{
	const __m128i zero = _mm_setzero_si128(), limit = _mm_set1_epi8((char)200);
	uint32_t sad = 0, blend = 0;
	for (int pass = 0; pass < 10; pass++) {
		__m128i sads = zero, blends = zero;
		for (int n = 0; n < COUNT * 4; n += 16) {
			__m128i x = _mm_load_si128((const __m128i *)(bx + n)),
				y = _mm_load_si128((const __m128i *)(by + n));
			sads = _mm_add_epi64(sads, _mm_sad_epu8(x, y));
			__m128i low = _mm_add_epi16(
				_mm_mullo_epi16(_mm_unpacklo_epi8(x, zero), _mm_set1_epi16(3)),
				_mm_mullo_epi16(_mm_unpacklo_epi8(y, zero), _mm_set1_epi16(5)));
			__m128i high = _mm_add_epi16(
				_mm_mullo_epi16(_mm_unpackhi_epi8(x, zero), _mm_set1_epi16(3)),
				_mm_mullo_epi16(_mm_unpackhi_epi8(y, zero), _mm_set1_epi16(5)));
			__m128i both =
				_mm_packus_epi16(_mm_srli_epi16(low, 3), _mm_srli_epi16(high, 3));
			__m128i keep = _mm_cmpeq_epi8(_mm_min_epu8(both, limit), both);
			blends = _mm_add_epi64(blends,
					       _mm_sad_epu8(_mm_and_si128(both, keep), zero));
		}
		sad = (uint32_t)(_mm_cvtsi128_si32(sads) +
				 _mm_cvtsi128_si32(_mm_srli_si128(sads, 8)));
		blend = (uint32_t)(_mm_cvtsi128_si32(blends) +
				   _mm_cvtsi128_si32(_mm_shuffle_epi32(blends, 2)));
	}
	if (sad != expected_sad || blend != expected_blend)
		fail("sse2-integer: sums %u and %u, not %u and %u", sad, blend, expected_sad,
		     expected_blend);
	return hash_word(hash_word(HASH_START, sad), blend);
}

/* The blend again, eight bytes at a time, in MMX registers. */
static uint32_t mmx_once(void)
{
	uint32_t blend = 0;
	for (int pass = 0; pass < 10; pass++) {
		const __m64 zero = _mm_setzero_si64(), three = _mm_set1_pi16(3),
			    five = _mm_set1_pi16(5);
		const __m64 limit = _mm_set1_pi16(200);
		__m64 sums = zero;
		for (int n = 0; n < COUNT * 4; n += 8) {
			__m64 x, y;
			memcpy(&x, bx + n, 8);
			memcpy(&y, by + n, 8);
			for (int half = 0; half < 2; half++) {
				__m64 xw = half ? _mm_unpackhi_pi8(x, zero)
						: _mm_unpacklo_pi8(x, zero);
				__m64 yw = half ? _mm_unpackhi_pi8(y, zero)
						: _mm_unpacklo_pi8(y, zero);
				__m64 w = _mm_srli_pi16(_mm_add_pi16(_mm_mullo_pi16(xw, three),
								     _mm_mullo_pi16(yw, five)),
							3);
				w = _mm_andnot_si64(_mm_cmpgt_pi16(w, limit), w);
				sums = _mm_add_pi32(sums, _mm_madd_pi16(w, _mm_set1_pi16(1)));
			}
		}
		blend = (uint32_t)_mm_cvtsi64_si32(sums) +
			(uint32_t)_mm_cvtsi64_si32(_mm_srli_si64(sums, 32));
		_mm_empty();
	}
	if (blend != expected_blend)
		fail("mmx: sum %u, not %u", blend, expected_blend);
	return hash_word(HASH_START, blend);
}

const struct row simd_rows[] = {
	{"sse2", "sse2-double", "packed doubles: a x + y, dot product", double_setup, double_once,
	 NULL},
	{"sse2", "sse2-float", "packed floats: normalising vectors", float_setup, float_once, NULL},
	{"sse2", "sse2-integer", "packed bytes and words: differences, blending", bytes_setup,
	 integers_once, NULL},
	{"sse2", "mmx", "blending with MMX", bytes_setup, mmx_once, NULL},
	{NULL, NULL, NULL, NULL, NULL, NULL},
};
