/* SPDX-License-Identifier: MIT */
/* Numbers and sizes as users type them, nearest words, memory and whole transfers (text.h). */
#include "lib/text.h"
#include "lib/bytes.h"
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* log2 of the unit behind a size suffix; -1 for one that there is not. */
static int suffix_shift(char c)
{
	switch (toupper((unsigned char)c)) {
	case 'B': return 0;
	case 'K': return 10;
	case 'M': return 20;
	case 'G': return 30;
	case 'T': return 40;
	case 'P': return 50;
	case 'E': return 60;
	default: return -1;
	}
}

int parse_size(const char *text, uint64_t default_unit, uint64_t *bytes, struct error *err)
{
	const char *p = text;
	char *end;
	if (!isdigit((unsigned char)*p))
		goto malformed;
	errno = 0;
	bool hex = p[0] == '0' && (p[1] == 'x' || p[1] == 'X');
	uint64_t whole = strtoull(p, &end, hex ? 16 : 10);
	if (errno == ERANGE)
		goto range;
	if (hex && !isxdigit((unsigned char)p[2]))
		goto malformed;

	/* The fraction as a rational number: at most 18 digits count, more change nothing. */
	uint64_t num = 0, den = 1;
	if (*end == '.' && !hex) {
		p = end + 1;
		if (!isdigit((unsigned char)*p))
			goto malformed;
		for (; isdigit((unsigned char)*p); p++) {
			if (den < UINT64_C(1000000000000000000)) {
				num = num * 10 + (uint64_t)(*p - '0');
				den *= 10;
			}
		}
		end = (char *)p;
	}
	uint64_t unit = default_unit;
	if (*end) {
		int shift = suffix_shift(*end);
		if (shift < 0 || end[1])
			goto malformed;
		unit = UINT64_C(1) << shift;
	}
	if (num && unit == 1)
		goto malformed; /* part of a byte */
	unsigned __int128 total = (unsigned __int128)whole * unit;
	total += (unsigned __int128)num * unit / den;
	if (total > UINT64_MAX)
		goto range;
	*bytes = (uint64_t)total;
	return 0;
malformed:
	return error_set(err, EINVAL,
			 "'%s' is not a size; write a number with an optional suffix k, M, G, T, P "
			 "or E",
			 text);
range:
	return error_set(err, ERANGE, "size '%s' is too large", text);
}

int parse_u64(const char *text, const char *what, uint64_t min, uint64_t max, uint64_t *out,
	      struct error *err)
{
	char *end;
	bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
	errno = 0;
	uint64_t v = 0;
	bool ok = isdigit((unsigned char)text[0]) && (!hex || isxdigit((unsigned char)text[2]));
	if (ok) {
		v = strtoull(text, &end, hex ? 16 : 10);
		ok = !*end;
	}
	if (!ok)
		return error_set(err, EINVAL, "%s must be a number, not '%s'", what, text);
	if (errno == ERANGE || v < min || v > max)
		return error_set(err, ERANGE, "%s must be between %llu and %llu, not '%s'", what,
				 (unsigned long long)min, (unsigned long long)max, text);
	*out = v;
	return 0;
}

char *format_size(uint64_t bytes, char out[32])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double v = (double)bytes;
	unsigned i = 0;
	/* Three significant digits: from 1000 on the next unit shows more. */
	while (v >= 1000 && i + 1 < ARRAY_SIZE(units)) {
		v /= 1024;
		i++;
	}
	snprintf(out, 32, "%.3g %s", v, units[i]);
	return out;
}

/* Edits (insert, delete, replace, swap two neighbours) that turn `a` into `b`; case is ignored. */
static unsigned edit_distance(const char *a, size_t la, const char *b, size_t lb)
{
	enum { MAX = 64 };
	if (la >= MAX || lb >= MAX)
		return UINT32_MAX;
	unsigned row[3][MAX];
	unsigned *before = row[0], *above = row[1], *cur = row[2];
	for (size_t j = 0; j <= lb; j++)
		above[j] = before[j] = (unsigned)j;
	for (size_t i = 1; i <= la; i++) {
		cur[0] = (unsigned)i;
		for (size_t j = 1; j <= lb; j++) {
			int ca = tolower((unsigned char)a[i - 1]);
			int cb = tolower((unsigned char)b[j - 1]);
			unsigned d = above[j - 1] + (ca != cb);
			if (above[j] + 1 < d)
				d = above[j] + 1;
			if (cur[j - 1] + 1 < d)
				d = cur[j - 1] + 1;
			if (i > 1 && j > 1 && ca == tolower((unsigned char)b[j - 2]) &&
			    cb == tolower((unsigned char)a[i - 2]) && before[j - 2] + 1 < d)
				d = before[j - 2] + 1;
			cur[j] = d;
		}
		unsigned *t = before;
		before = above;
		above = cur;
		cur = t;
	}
	return above[lb];
}

const char *nearest_word(const char *word, const char *const *list)
{
	size_t len = strlen(word);
	const char *best = NULL;
	unsigned best_distance = (unsigned)(len + 2) / 3 + 1;
	for (; *list; list++) {
		size_t len2 = strlen(*list);
		unsigned d = edit_distance(word, len, *list, len2);
		/* A word of which every letter would change is not near. */
		if (d < best_distance && d < len2) {
			best_distance = d;
			best = *list;
		}
	}
	return best;
}

static void *no_memory(size_t size)
{
	fprintf(stderr, "minivm: out of memory (%zu bytes more were needed)\n", size);
	exit(1);
}

void *xmalloc(size_t size)
{
	void *p = malloc(size ? size : 1);
	return p ? p : no_memory(size);
}

void *xcalloc(size_t count, size_t size)
{
	void *p = calloc(count ? count : 1, size ? size : 1);
	return p ? p : no_memory(count * size);
}

void *xrealloc(void *old, size_t size)
{
	void *p = realloc(old, size ? size : 1);
	return p ? p : no_memory(size);
}

char *xstrdup(const char *s)
{
	size_t size = strlen(s) + 1;
	return memcpy(xmalloc(size), s, size);
}

char *xasprintf(const char *fmt, ...)
{
	va_list ap;
	char *text;
	va_start(ap, fmt);
	int n = vasprintf(&text, fmt, ap);
	va_end(ap);
	return n < 0 ? no_memory(strlen(fmt)) : text;
}

int write_full(int fd, const void *buf, size_t len)
{
	for (const char *p = buf; len;) {
		ssize_t n = write(fd, p, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

int pread_full(int fd, void *buf, size_t len, uint64_t offset)
{
	for (char *p = buf; len;) {
		ssize_t n = pread(fd, p, len, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		p += n;
		len -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

int pwrite_full(int fd, const void *buf, size_t len, uint64_t offset)
{
	for (const char *p = buf; len;) {
		ssize_t n = pwrite(fd, p, len, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		p += n;
		len -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

void *read_file(const char *path, size_t max, size_t *len, struct error *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		error_errno(err, errno, "cannot open '%s'", path);
		return NULL;
	}
	struct stat st;
	size_t cap = 4096, used = 0;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0)
		cap = (uint64_t)st.st_size < max ? (size_t)st.st_size : max;
	char *data = malloc(cap + 2);
	while (data) {
		/* One byte more than `max` tells a file that is too large from one that just fits.
		 */
		ssize_t n = read(fd, data + used, cap + 1 - used);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			error_errno(err, errno, "cannot read '%s'", path);
			goto fail;
		}
		used += (size_t)n;
		if (used > max) {
			char text[32];
			error_set(err, EFBIG, "'%s' is larger than the %s that are allowed here",
				  path, format_size(max, text));
			goto fail;
		}
		if (n == 0)
			break;
		if (used == cap + 1) {
			cap = cap < max / 2 ? cap * 2 : max;
			char *more = realloc(data, cap + 2);
			if (!more) {
				free(data);
				data = NULL;
			} else {
				data = more;
			}
		}
	}
	if (!data) {
		error_errno(err, ENOMEM, "cannot read '%s'", path);
		goto fail;
	}
	close(fd);
	data[used] = '\0';
	*len = used;
	return data;
fail:
	close(fd);
	free(data);
	return NULL;
}
