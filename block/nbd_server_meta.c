/* SPDX-License-Identifier: MIT */
/*
 * Metadata contexts (doc/proto.md, "Metadata querying"): what the server knows of ranges besides
 * their contents.
 *
 *   base:allocation            holes and zeroes, as the whole chain of images has them
 *   qemu:allocation-depth      which image of the chain holds the range: 1 the top, 0 none
 *   qemu:dirty-bitmap:NAME     what a persistent bitmap says
 *
 * The names with "qemu:" are QEMU's (docs/interop/nbd.txt). One answer covers a bounded number of
 * extents, and looking for them stops after a bounded number of steps: the client asks again for
 * what is missing.
 */
#include "block/nbd_server_internal.h"
#include "lib/text.h"
#include <stdlib.h>
#include <string.h>

enum { MAX_STEPS = 1 << 16 };

static bool starts_with(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

char *nbd_meta_name(const struct nbd_export *e, unsigned id)
{
	if (id == META_ALLOCATION)
		return xstrdup(NBD_META_BASE_ALLOCATION);
	if (id == META_DEPTH)
		return e->allocation_depth ? xstrdup(NBD_META_ALLOCATION_DEPTH) : NULL;
	if (id - META_BITMAPS >= e->bitmaps)
		return NULL;
	return xasprintf("%s%s", NBD_META_DIRTY_BITMAP, e->bitmap[id - META_BITMAPS].name);
}

void nbd_meta_match(const struct nbd_export *e, const char *query, bool list, bool chosen[META_MAX])
{
	/* Names that mean all which begin with them. */
	static const char *const groups[] = {"base:", "qemu:", NBD_META_DIRTY_BITMAP};
	bool group = false;
	for (size_t i = 0; i < ARRAY_SIZE(groups); i++)
		group |= strcmp(query, groups[i]) == 0;
	for (unsigned id = 0; id < META_BITMAPS + e->bitmaps; id++) {
		char *name = nbd_meta_name(e, id);
		if (name &&
		    (strcmp(name, query) == 0 || (list && group && starts_with(name, query))))
			chosen[id] = true;
		free(name);
	}
}

/* Flags of the range at `offset` of the image in one context; *count becomes how far they hold. */
static int flags_at(const struct nbd_export *e, unsigned id, uint64_t offset, uint64_t len,
		    uint64_t *count)
{
	if (id >= META_BITMAPS) {
		struct image *img = e->bitmap[id - META_BITMAPS].image;
		/* The image may be longer than the one below it that has the bitmap. */
		uint64_t size = image_size(img);
		*count = len;
		if (offset >= size)
			return 0;
		int dirty = image_bitmap_status(img, e->bitmap[id - META_BITMAPS].name, offset,
						len < size - offset ? len : size - offset, count);
		return dirty <= 0 ? dirty : NBD_STATE_DIRTY;
	}
	int depth;
	int status = image_chain_status(e->image, NULL, offset, len, count, NULL, NULL, &depth);
	if (status < 0)
		return status;
	if (id == META_DEPTH)
		return status & BLOCK_ALLOCATED ? depth + 1 : 0;
	return (status & BLOCK_DATA ? 0 : NBD_STATE_HOLE) |
	       (status & BLOCK_ZERO ? NBD_STATE_ZERO : 0);
}

int nbd_meta_extents(const struct nbd_export *e, unsigned id, uint64_t offset, uint32_t len,
		     uint32_t *extents, unsigned max)
{
	unsigned n = 0;
	uint32_t last = 0;
	for (int step = 0; len && step < MAX_STEPS; step++) {
		uint64_t count = 0;
		int flags = flags_at(e, id, e->offset + offset, len, &count);
		if (flags < 0 || !count)
			return n ? (int)n : flags < 0 ? flags : -EIO;
		if (count > len)
			count = len;
		if (n && last == (uint32_t)flags) {
			store_be32(&extents[2 * n - 2],
				   load_be32(&extents[2 * n - 2]) + (uint32_t)count);
		} else {
			if (n == max)
				break;
			store_be32(&extents[2 * n], (uint32_t)count);
			store_be32(&extents[2 * n + 1], (uint32_t)flags);
			last = (uint32_t)flags;
			n++;
		}
		offset += count;
		len -= (uint32_t)count;
	}
	return (int)n;
}
