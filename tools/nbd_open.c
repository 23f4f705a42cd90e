/* SPDX-License-Identifier: MIT */
/* The image that minivm-nbd serves: its name or options, a snapshot of it, a part of it. */
#include "lib/bytes.h"
#include "lib/optstr.h"
#include "lib/text.h"
#include "tools/nbd.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct image *open_with_opts(struct nbd_source *s, struct error *err)
{
	struct opts o;
	if (opts_parse(&o, s->name, NULL, err))
		return NULL;
	struct image *img = image_open_described(&o, s->flags, err);
	opts_free(&o);
	return img;
}

/* Narrows what is served to [offset, offset + size) of it; size UINT64_MAX: to the end. */
static int narrow(struct nbd_source *s, uint64_t offset, uint64_t size, struct error *err)
{
	if (offset > s->size)
		return error_set(err, EINVAL,
				 "offset (%llu) has to be smaller than or equal to the image size "
				 "(%llu)",
				 (unsigned long long)offset, (unsigned long long)s->size);
	if (size != UINT64_MAX && size > s->size - offset)
		return error_set(err, EINVAL, "offset and size go beyond the end of '%s'", s->name);
	s->from += offset;
	s->size = size == UINT64_MAX ? s->size - offset : size;
	return 0;
}

struct image *nbd_open(struct nbd_source *s, struct error *err)
{
	uint64_t offset = 0, from, len;
	if (s->offset && parse_size(s->offset, 1, &offset, err)) {
		error_prefix(err, "invalid offset '%s'", s->offset);
		return NULL;
	}
	struct image *img = s->image_opts ? open_with_opts(s, err)
					  : image_open(s->name, s->format, s->flags, NULL, err);
	if (!img)
		return NULL;
	if (s->load_snapshot && image_load_snapshot(img, s->load_snapshot, err))
		goto fail;
	if (s->snapshot) {
		img = image_open_snapshot(img, err);
		if (!img)
			return NULL;
		if (s->flags & IMAGE_FILTERS && image_add_filters(img, s->flags, err))
			goto fail;
	}
	s->from = 0;
	s->size = image_size(img);
	if (s->partition) {
		if (nbd_find_partition(img, s->partition, &from, &len, err) ||
		    narrow(s, from, len, err))
			goto fail;
	}
	if (narrow(s, offset, UINT64_MAX, err))
		goto fail;
	return img;
fail:
	image_close(img);
	return NULL;
}
