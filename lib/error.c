/* SPDX-License-Identifier: MIT */
/* Error sentences: see error.h for their form. */
#include "lib/error.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int error_set(struct error *err, int code, const char *fmt, ...)
{
	if (err) {
		va_list ap;
		va_start(ap, fmt);
		vsnprintf(err->text, sizeof(err->text), fmt, ap);
		va_end(ap);
		err->code = code;
	}
	return -code;
}

int error_errno(struct error *err, int code, const char *fmt, ...)
{
	if (err) {
		va_list ap;
		va_start(ap, fmt);
		vsnprintf(err->text, sizeof(err->text), fmt, ap);
		va_end(ap);
		size_t len = strlen(err->text);
		char why[128];
		/* the GNU strerror_r() returns the text, which need not be in the buffer */
		snprintf(err->text + len, sizeof(err->text) - len, ": %s",
			 strerror_r(code, why, sizeof(why)));
		err->code = code;
	}
	return -code;
}

void error_prefix(struct error *err, const char *fmt, ...)
{
	if (!err)
		return;
	char old[sizeof(err->text)];
	memcpy(old, err->text, sizeof(old));
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(err->text, sizeof(err->text), fmt, ap);
	va_end(ap);
	size_t len = strlen(err->text);
	snprintf(err->text + len, sizeof(err->text) - len, ": %s", old);
}
