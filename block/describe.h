/* SPDX-License-Identifier: MIT */
/* Images that options describe key by key, as QEMU's --image-opts and "json:" names do. */
#ifndef BLOCK_DESCRIBE_H
#define BLOCK_DESCRIBE_H

#include "lib/error.h"
#include "lib/optstr.h"
#include <stdbool.h>

struct image_description {
	const char *file;    /* name of the file; NULL: none, or an NBD server's options */
	const char *format;  /* NULL: probe */
	unsigned set, clear; /* enum image_flags that are asked for, and asked not to be */
	bool native;         /* aio=native: IMAGE_DIRECT must be on */
	bool has_backing;    /* the backing image is described too */
	struct opts backing; /* its options, without their "backing." */
};

/*
 * Reads what `opts` say of the node, and marks the keys used; those of NBD nodes and of the formats
 * are left. Strings belong to `opts`. Without an error, free it with image_description_free().
 */
int image_describe(struct opts *opts, struct image_description *d, struct error *err);
void image_description_free(struct image_description *d);

#endif
