/* SPDX-License-Identifier: MIT */
/*
 * Frames on a byte stream, as QEMU's socket network sends them: each with its length in front, 32
 * bits, big-endian.
 */
#ifndef NET_FRAMES_H
#define NET_FRAMES_H

#include "net/net.h"

enum { FRAMES_HEADER = 4 };

/* Puts frames together from pieces of a stream. Zero it to start. */
struct frame_reader {
	size_t have; /* bytes of `data`: header and frame */
	uint8_t data[FRAMES_HEADER + NET_FRAME_MAX];
};

/*
 * Where to read the next bytes to, and at most how many (never more than the current frame needs).
 * -EPROTO when the peer announced a frame of no or impossible length: the stream is unusable.
 */
int frame_reader_want(struct frame_reader *r, uint8_t **at, size_t *len);
/* `len` bytes came. True when a whole frame is there: it is frame_reader_frame(). */
bool frame_reader_got(struct frame_reader *r, size_t len);
const uint8_t *frame_reader_frame(const struct frame_reader *r, size_t *len);
/* The frame was used. */
void frame_reader_next(struct frame_reader *r);

#endif
