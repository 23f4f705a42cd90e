/* SPDX-License-Identifier: MIT */
/* Scatter-gather lists in pieces (iov.h). */
#include "block/iov.h"
#include <stdint.h>
#include <string.h>

uint64_t iov_total(const struct iovec *iov, int count)
{
	uint64_t total = 0;
	for (int i = 0; i < count; i++)
		if (__builtin_add_overflow(total, (uint64_t)iov[i].iov_len, &total))
			return UINT64_MAX;
	return total;
}

int iov_peek(const struct iov_iter *it, size_t len, struct iovec *out, int max, size_t *covered)
{
	int n = 0;
	size_t skip = it->skip;
	*covered = 0;
	for (int i = 0; i < it->count && n < max && len; i++, skip = 0) {
		size_t part = it->iov[i].iov_len - skip;
		if (!part)
			continue;
		if (part > len)
			part = len;
		out[n++] = (struct iovec){(char *)it->iov[i].iov_base + skip, part};
		*covered += part;
		len -= part;
	}
	return n;
}

/* The longest piece of at most `len` bytes at the position; NULL at the end. */
static void *piece(struct iov_iter *it, size_t len, size_t *part)
{
	while (it->count && it->skip == it->iov->iov_len) {
		it->iov++;
		it->count--;
		it->skip = 0;
	}
	if (!it->count || !len)
		return NULL;
	*part = it->iov->iov_len - it->skip;
	if (*part > len)
		*part = len;
	void *p = (char *)it->iov->iov_base + it->skip;
	it->skip += *part;
	return p;
}

void iov_advance(struct iov_iter *it, size_t len)
{
	size_t part;
	while (piece(it, len, &part))
		len -= part;
}

void iov_read(struct iov_iter *it, void *to, size_t len)
{
	size_t part;
	for (void *p; (p = piece(it, len, &part)); to = (char *)to + part, len -= part)
		memcpy(to, p, part);
}

void iov_write(struct iov_iter *it, const void *from, size_t len)
{
	size_t part;
	for (void *p; (p = piece(it, len, &part)); from = (const char *)from + part, len -= part)
		memcpy(p, from, part);
}

void iov_zero(struct iov_iter *it, size_t len)
{
	size_t part;
	for (void *p; (p = piece(it, len, &part)); len -= part)
		memset(p, 0, part);
}

bool all_zero(const void *p, size_t len)
{
	const uint8_t *b = p;
	/* Most data shows at once that it is none; the rest goes fast in vectors. */
	if (!len || b[0] || b[len - 1] || b[len / 2])
		return !len;
	while (len >= 256) {
		uint64_t v[32], any = 0;
		memcpy(v, b, sizeof(v));
		for (int i = 0; i < 32; i++)
			any |= v[i];
		if (any)
			return false;
		b += 256;
		len -= 256;
	}
	while (len && !*b)
		b++, len--;
	return !len;
}

bool iov_all_zero(const struct iovec *iov, int count)
{
	for (int i = 0; i < count; i++)
		if (!all_zero(iov[i].iov_base, iov[i].iov_len))
			return false;
	return true;
}
