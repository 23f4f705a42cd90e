/* SPDX-License-Identifier: MIT */
#include "net/frames.h"
#include "lib/bytes.h"
#include <errno.h>

static size_t frame_len(const struct frame_reader *r)
{
	return load_be32(r->data);
}

int frame_reader_want(struct frame_reader *r, uint8_t **at, size_t *len)
{
	size_t total = FRAMES_HEADER;
	if (r->have >= FRAMES_HEADER) {
		if (frame_len(r) == 0 || frame_len(r) > NET_FRAME_MAX)
			return -EPROTO;
		total += frame_len(r);
	}
	*at = r->data + r->have;
	*len = total - r->have;
	return 0;
}

bool frame_reader_got(struct frame_reader *r, size_t len)
{
	r->have += len;
	return r->have > FRAMES_HEADER && r->have == FRAMES_HEADER + frame_len(r);
}

const uint8_t *frame_reader_frame(const struct frame_reader *r, size_t *len)
{
	*len = frame_len(r);
	return r->data + FRAMES_HEADER;
}

void frame_reader_next(struct frame_reader *r)
{
	r->have = 0;
}
