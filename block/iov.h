/* SPDX-License-Identifier: MIT */
/* Walking a scatter-gather list in pieces. */
#ifndef BLOCK_IOV_H
#define BLOCK_IOV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* A position in an iovec. The list itself is never changed. */
struct iov_iter {
	const struct iovec *iov;
	int count; /* entries left, the current one included */
	size_t skip;
};

static inline struct iov_iter iov_iter(const struct iovec *iov, int count)
{
	return (struct iov_iter){.iov = iov, .count = count};
}

/* Sum of all lengths; UINT64_MAX if it does not fit. */
uint64_t iov_total(const struct iovec *iov, int count);
/* Fills out[0..max) with the next at most `len` bytes, without moving on. Returns how many entries
 * were filled; *covered becomes their sum. */
int iov_peek(const struct iov_iter *it, size_t len, struct iovec *out, int max, size_t *covered);
void iov_advance(struct iov_iter *it, size_t len);
/* Copy from / to the position and move on. */
void iov_read(struct iov_iter *it, void *to, size_t len);
void iov_write(struct iov_iter *it, const void *from, size_t len);
void iov_zero(struct iov_iter *it, size_t len);
bool all_zero(const void *p, size_t len);
bool iov_all_zero(const struct iovec *iov, int count);

#endif
