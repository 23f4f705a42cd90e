/* SPDX-License-Identifier: MIT */
/*
 * Raw CD-ROM mode 1 blocks made from their 2048 bytes of user data.
 *
 *   0    sync      00, ten times FF, 00
 *   12   header    minute, second, frame (BCD), mode
 *   16   user data
 *   2064 EDC       CRC-32 of all before, little-endian
 *   2068 zeroes
 *   2076 P parity  86 code words of 24 + 2 bytes: columns of a 43 x 24 array of words
 *   2248 Q parity  52 code words of 43 + 2 bytes: its diagonals, P parity included
 *
 * Low and high bytes of the words form code words of their own. A code word is Reed-Solomon over
 * GF(2^8) with the polynomial x^8 + x^4 + x^3 + x^2 + 1 and the roots 1 and a: its bytes sum to
 * zero plainly, and weighted with descending powers of a.
 *
 * Document: ECMA-130, 14 (sectors), annex A (error correction).
 */
#include "devices/ide_internal.h"
#include <string.h>

enum layout {
	SYNC_SIZE = 12,
	HEADER_SIZE = 4,
	USER_OFFSET = SYNC_SIZE + HEADER_SIZE,
	EDC_OFFSET = USER_OFFSET + CD_BLOCK,
	EDC_ECC_SIZE = CD_RAW_BLOCK - EDC_OFFSET,
	P_OFFSET = 2076,
	Q_OFFSET = 2248,
	P_WORDS = 43,
	P_DATA = 24,
	Q_WORDS = 26,
	Q_DATA = 43,
	MODE_1 = 1,
};
#define EDC_POLYNOMIAL UINT32_C(0xD8018001) /* reflected */

uint32_t cd_block_size(uint8_t fields)
{
	return (fields & CD_SYNC ? SYNC_SIZE : 0u) + (fields & CD_HEADER ? HEADER_SIZE : 0u) +
	       (fields & CD_USER_DATA ? CD_BLOCK : 0u) + (fields & CD_EDC_ECC ? EDC_ECC_SIZE : 0u);
}

int cd_block_user_offset(uint8_t fields)
{
	if (!(fields & CD_USER_DATA))
		return -1;
	return (fields & CD_SYNC ? SYNC_SIZE : 0) + (fields & CD_HEADER ? HEADER_SIZE : 0);
}

void cd_msf(uint32_t lba, uint8_t msf[3])
{
	uint64_t frame = (uint64_t)lba + CD_PREGAP;

	msf[0] = (uint8_t)(frame / (CD_FRAMES * CD_SECONDS));
	msf[1] = (uint8_t)(frame / CD_FRAMES % CD_SECONDS);
	msf[2] = (uint8_t)(frame % CD_FRAMES);
}

static uint32_t edc(const uint8_t *data, size_t len)
{
	uint32_t crc = 0;

	for (size_t i = 0; i < len; i++) {
		crc ^= data[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? EDC_POLYNOMIAL : 0);
	}
	return crc;
}

static uint8_t times_a(uint8_t v)
{
	return (uint8_t)(v << 1 ^ (v & 0x80 ? 0x1D : 0));
}

static uint8_t gf_multiply(uint8_t x, uint8_t y)
{
	uint8_t product = 0;

	for (; y; y >>= 1, x = times_a(x))
		if (y & 1)
			product ^= x;
	return product;
}

/*
 * The two parity bytes of each of `words` * 2 code words of `count` bytes. Word n starts at byte
 * first_step * n of `data` and goes on in steps of `step`, modulo `size`; `parity` gets first all
 * first parity bytes, then all second ones.
 */
static void add_parity(const uint8_t *data, unsigned size, unsigned words, unsigned count,
		       unsigned first_step, unsigned step, uint8_t *parity)
{
	enum { INVERSE_OF_A_PLUS_1 = 0xF4 };

	for (unsigned n = 0; n < 2 * words; n++) {
		unsigned at = first_step * (n / 2) + n % 2;
		uint8_t sum = 0, weighted = 0;
		for (unsigned i = 0; i < count; i++, at = (at + step) % size) {
			sum ^= data[at];
			weighted = times_a(weighted ^ data[at]);
		}
		/* p0 + p1 = sum and a * p0 + p1 = a * weighted */
		uint8_t p0 = gf_multiply(sum ^ times_a(weighted), INVERSE_OF_A_PLUS_1);
		parity[n] = p0;
		parity[2 * words + n] = sum ^ p0;
	}
}

static uint8_t bcd(uint8_t v)
{
	return (uint8_t)(v / 10 % 10 << 4 | v % 10);
}

void cd_block_dress(uint8_t *block, uint32_t lba, uint8_t fields)
{
	uint8_t full[CD_RAW_BLOCK] = {0}, msf[3], *header = full + SYNC_SIZE;
	int user = cd_block_user_offset(fields);

	memset(full + 1, 0xFF, SYNC_SIZE - 2);
	cd_msf(lba, msf);
	for (int i = 0; i < 3; i++)
		header[i] = bcd(msf[i]);
	header[3] = MODE_1;
	if (user >= 0)
		memcpy(full + USER_OFFSET, block + user, CD_BLOCK);
	if (fields & CD_EDC_ECC) {
		store_le32(full + EDC_OFFSET, edc(full, EDC_OFFSET));
		add_parity(header, P_OFFSET - SYNC_SIZE, P_WORDS, P_DATA, 2, 2 * P_WORDS,
			   full + P_OFFSET);
		add_parity(header, Q_OFFSET - SYNC_SIZE, Q_WORDS, Q_DATA, 2 * Q_DATA,
			   2 * (Q_DATA + 1), full + Q_OFFSET);
	}
	if (fields & CD_SYNC) {
		memcpy(block, full, SYNC_SIZE);
		block += SYNC_SIZE;
	}
	if (fields & CD_HEADER) {
		memcpy(block, header, HEADER_SIZE);
		block += HEADER_SIZE;
	}
	if (fields & CD_USER_DATA)
		block += CD_BLOCK;
	if (fields & CD_EDC_ECC)
		memcpy(block, full + EDC_OFFSET, EDC_ECC_SIZE);
}
