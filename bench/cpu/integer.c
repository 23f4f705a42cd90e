/* SPDX-License-Identifier: MIT */
/*
 * Integer rows that are one loop each: CRC-32, a sieve, SHA-256, recursive calls, multiplication and
 * division, a matrix product.
 */
#include "row.h"

/* CRC-32 of ISO 3309, bytewise with a table: one dependent load an input byte. */
static uint32_t crc_table[256];
static uint8_t crc_data[128 * 1024];

static uint32_t crc32_of(const uint8_t *data, size_t size)
{
	uint32_t crc = ~0u;
	while (size--)
		crc = crc_table[(uint8_t)(crc ^ *data++)] ^ crc >> 8;
	return ~crc;
}

static void crc32_setup(void)
{
	uint32_t seed = 1;
	for (uint32_t n = 0; n < 256; n++) {
		uint32_t c = n;
		for (int bit = 0; bit < 8; bit++)
			c = c >> 1 ^ (c & 1 ? 0xEDB88320u : 0);
		crc_table[n] = c;
	}
	for (size_t n = 0; n < sizeof(crc_data); n++)
		crc_data[n] = (uint8_t)(next_random(&seed) >> 24);
	if (crc32_of((const uint8_t *)"123456789", 9) != 0xCBF43926u)
		fail("crc32: wrong check value");
}

static uint32_t crc32_once(void)
{
	return crc32_of(crc_data, sizeof(crc_data));
}

/* Sieve of Eratosthenes below 256 Ki, a byte a number. */
enum { SIEVE_SIZE = 256 * 1024, SIEVE_PRIMES = 23000 };
static uint8_t struck[SIEVE_SIZE];

static uint32_t sieve_once(void)
{
	uint32_t primes = 0, hash = HASH_START;
	for (uint32_t n = 0; n < SIEVE_SIZE; n++)
		struck[n] = 0;
	for (uint32_t n = 2; n < SIEVE_SIZE; n++) {
		if (struck[n])
			continue;
		primes++;
		hash = hash_word(hash, n);
		for (uint32_t m = 2 * n; m < SIEVE_SIZE; m += n)
			struck[m] = 1;
	}
	if (primes != SIEVE_PRIMES)
		fail("sieve: %u primes", primes);
	return hash;
}

/* SHA-256, FIPS 180-4 6.2, over 64 KiB. */
static const uint32_t sha_k[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
	0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
	0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
	0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
	0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
	0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
	0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
	0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
	0xc67178f2,
};

static inline uint32_t rotate_right(uint32_t x, int n)
{
	return x >> n | x << (32 - n);
}

static void sha_block(uint32_t h[8], const uint8_t *block)
{
	uint32_t w[64];
	uint32_t a = h[0], b = h[1], c = h[2], d = h[3], e = h[4], f = h[5], g = h[6], i = h[7];
	for (int n = 0; n < 16; n++) {
		uint32_t word;
		memcpy(&word, block + 4 * n, 4);
		w[n] = __builtin_bswap32(word);
	}
	for (int n = 16; n < 64; n++) {
		uint32_t x = w[n - 15], y = w[n - 2];
		w[n] = w[n - 16] + w[n - 7] + (rotate_right(x, 7) ^ rotate_right(x, 18) ^ x >> 3) +
		       (rotate_right(y, 17) ^ rotate_right(y, 19) ^ y >> 10);
	}
	for (int n = 0; n < 64; n++) {
		uint32_t t1 = i + (rotate_right(e, 6) ^ rotate_right(e, 11) ^ rotate_right(e, 25)) +
			      ((e & f) ^ (~e & g)) + sha_k[n] + w[n];
		uint32_t t2 = (rotate_right(a, 2) ^ rotate_right(a, 13) ^ rotate_right(a, 22)) +
			      ((a & b) ^ (a & c) ^ (b & c));
		i = g;
		g = f;
		f = e;
		e = d + t1;
		d = c;
		c = b;
		b = a;
		a = t1 + t2;
	}
	h[0] += a;
	h[1] += b;
	h[2] += c;
	h[3] += d;
	h[4] += e;
	h[5] += f;
	h[6] += g;
	h[7] += i;
}

static const uint32_t sha_start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
				      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
static uint8_t sha_data[64 * 1024];

static void sha_setup(void)
{
	/* FIPS 180-4, example "abc": one padded block. */
	uint8_t abc[64] = {'a', 'b', 'c', 0x80, [63] = 24};
	uint32_t h[8], seed = 2;
	memcpy(h, sha_start, sizeof(h));
	sha_block(h, abc);
	if (h[0] != 0xba7816bfu || h[7] != 0xf20015adu)
		fail("sha256: wrong digest of abc");
	for (size_t n = 0; n < sizeof(sha_data); n++)
		sha_data[n] = (uint8_t)next_random(&seed);
}

static uint32_t sha_once(void)
{
	uint32_t h[8];
	memcpy(h, sha_start, sizeof(h));
	for (size_t n = 0; n < sizeof(sha_data); n += 64)
		sha_block(h, sha_data + n);
	return hash_bytes(HASH_START, h, sizeof(h));
}

/* Calls and returns: the naive Fibonacci number, and a function through a pointer. */
static __attribute__((noinline)) uint32_t fib(uint32_t n)
{
	__asm__ volatile(""); /* keeps the compiler from unrolling the recursion into itself */
	return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static uint32_t calls_once(void)
{
	uint32_t n = 23;
	uint32_t (*volatile function)(uint32_t) = fib;
	HIDE(n);
	if (function(n) != 28657)
		fail("calls: fib(23) is wrong");
	return hash_word(HASH_START, fib(n - 1) + function(n - 2));
}

/* Multiply and divide, 32 bits: remainders by changing divisors, signed and unsigned. */
static uint32_t muldiv32_once(void)
{
	uint32_t a = 12345, hash = HASH_START;
	for (uint32_t n = 1; n <= 40000; n++) {
		uint32_t d = (n & 0xFFF) | 1;
		int32_t s = (int32_t)(a ^ 0x80000000u);
		HIDE(d);
		a = a * 1664525u + 1013904223u;
		uint32_t q = a / d, r = a % d;
		if (q * d + r != a)
			fail("muldiv32: %u / %u", a, d);
		hash += q ^ r;
		hash ^= (uint32_t)(s / (int32_t)d) + (uint32_t)(s % (int32_t)d);
	}
	return hash;
}

/* The same with 64 bits: widening multiplications and the compiler's helper functions for division. */
static uint32_t muldiv64_once(void)
{
	uint64_t a = 88172645463325252u, hash = HASH_START;
	for (uint32_t n = 1; n <= 20000; n++) {
		uint64_t d = (uint64_t)n * 0x10001u + (n & 1 ? 0 : (uint64_t)n << 31);
		a = a * 6364136223846793005u + 1442695040888963407u;
		uint64_t q = a / d, r = a % d;
		if (q * d + r != a)
			fail("muldiv64: wrong quotient");
		int64_t s = (int64_t)a / (int32_t)(n | 1);
		hash += q ^ r ^ (uint64_t)s;
		hash ^= (uint64_t)(uint32_t)a * (uint32_t)(a >> 32);
	}
	return (uint32_t)(hash ^ hash >> 32);
}

/* Product of two 96x96 matrices of 32-bit numbers. */
enum { MATRIX = 96 };
static int32_t left[MATRIX][MATRIX], right[MATRIX][MATRIX], product[MATRIX][MATRIX];

static void matrix_setup(void)
{
	uint32_t seed = 3;
	for (int y = 0; y < MATRIX; y++)
		for (int x = 0; x < MATRIX; x++) {
			left[y][x] = (int32_t)next_random(&seed) >> 20;
			right[y][x] = (int32_t)next_random(&seed) >> 20;
		}
}

static uint32_t matrix_once(void)
{
	int64_t trace = 0, by_sum = 0;
	for (int y = 0; y < MATRIX; y++)
		for (int x = 0; x < MATRIX; x++) {
			int32_t sum = 0;
			for (int k = 0; k < MATRIX; k++)
				sum += left[y][k] * right[k][x];
			product[y][x] = sum;
		}
	for (int y = 0; y < MATRIX; y++) {
		trace += product[y][y];
		for (int k = 0; k < MATRIX; k++)
			by_sum += left[y][k] * right[k][y];
	}
	if (trace != by_sum)
		fail("matrix: wrong trace");
	return hash_bytes(HASH_START, product, sizeof(product));
}

const struct row integer_rows[] = {
	{"integer", "crc32", "table-driven CRC-32 of 128 KiB", crc32_setup, crc32_once, NULL},
	{"integer", "sieve", "primes below 256 Ki", NULL, sieve_once, NULL},
	{"integer", "sha256", "SHA-256 of 64 KiB", sha_setup, sha_once, NULL},
	{"integer", "calls", "recursive calls, direct and through a pointer", NULL, calls_once,
	 NULL},
	{"integer", "muldiv32", "32-bit multiplications and divisions", NULL, muldiv32_once, NULL},
	{"integer", "muldiv64", "64-bit multiplications and divisions", NULL, muldiv64_once, NULL},
	{"integer", "matrix", "product of 96x96 integer matrices", matrix_setup, matrix_once, NULL},
	{NULL, NULL, NULL, NULL, NULL, NULL},
};
