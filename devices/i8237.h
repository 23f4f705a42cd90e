/* SPDX-License-Identifier: MIT */
/*
 * The two 8237A DMA controllers of a PC with their page registers. Channels 0..3 move bytes, 5..7
 * move 16-bit words; 4 is the cascade.
 *
 * A device is a client of one channel: it raises its request line while it has something to move
 * and calls i8237_transfer(). When the guest has not unmasked the channel yet, the transfer moves
 * nothing and the client is called back when the channel becomes ready.
 */
#ifndef DEVICES_I8237_H
#define DEVICES_I8237_H

#include "core/device.h"
#include <stdbool.h>
#include <stddef.h>

struct i8237;

struct i8237 *i8237_new(const struct device_env *env);
void i8237_free(struct i8237 *dma);

/* `ready` is called (lock held) when the channel's request line is up and the channel became able
 * to transfer. One client a channel. */
void i8237_set_client(struct i8237 *dma, unsigned channel, void (*ready)(void *opaque),
		      void *opaque);
/* The DREQ line. Shown in the status register. */
void i8237_request(struct i8237 *dma, unsigned channel, bool level);
/* True if the channel would move data now: not masked, controller on, not in cascade mode. */
bool i8237_ready(const struct i8237 *dma, unsigned channel);
/*
 * Moves up to `len` bytes between `buf` and guest memory as the guest programmed the channel and
 * returns how many were moved: fewer than `len` when the count ran out (then *terminal_count is
 * true) and 0 when the channel is masked or programmed for the other direction. `to_memory`: the
 * device delivers (an 8237 "write transfer"). In verify mode bytes are counted, memory is left
 * alone. On channels 5..7 an odd last byte is not moved.
 */
size_t i8237_transfer(struct i8237 *dma, unsigned channel, void *buf, size_t len, bool to_memory,
		      bool *terminal_count);

#endif
