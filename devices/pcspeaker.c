/* SPDX-License-Identifier: MIT */
/*
 * System control port B (61h): the gate of timer 2, the speaker's data bit, and some old AT status.
 *
 *   bit  0  R/W  gate of timer 2
 *        1  R/W  speaker data enable
 *        2  R/W  PCI SERR# (parity check) disable
 *        3  R/W  IOCHK# disable
 *        4  R    refresh toggle: changes every 15.085 us
 *        5  R    output of timer 2
 *        6  R    IOCHK# status, 7 R SERR# status: always 0, no such error occurs
 *
 * Documents: IBM PC AT Technical Reference, "System Board I/O: port B"; 82371SB (PIIX3) datasheet,
 * 2.5.4.1 "NMI Status and Control Register". Left out: sound.
 */
#include "devices/pcspeaker.h"
#include "core/iobus.h"
#include "core/state.h"
#include "devices/i8254.h"
#include "lib/clock.h"
#include "lib/text.h"
#include <stdlib.h>

enum {
	PORT_B = 0x61,
	B_GATE2 = 1 << 0,
	B_WRITABLE = 0x0F,
	B_REFRESH = 1 << 4,
	B_OUT2 = 1 << 5,
	REFRESH_NS = 15085,
};

struct pcspeaker {
	uint8_t control; /* bits 0..3 as written */

	struct i8254 *pit;
	struct clock *clock;
	struct iobus *io;
	struct io_range *range;
	struct state_registry *states;
};

static const struct state_field pcspeaker_fields[] = {STATE_UINT(pcspeaker, control), STATE_END};

static uint32_t portb_read(void *opaque, uint16_t port, unsigned size)
{
	struct pcspeaker *spk = opaque;
	bool refresh = clock_now(spk->clock) / REFRESH_NS & 1;

	return spk->control | (refresh ? B_REFRESH : 0u) | (i8254_out2(spk->pit) ? B_OUT2 : 0u);
}

static void portb_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
	struct pcspeaker *spk = opaque;

	spk->control = value & B_WRITABLE;
	i8254_set_gate2(spk->pit, value & B_GATE2);
}

static const struct io_ops portb_ops = {.read = portb_read, .write = portb_write};

static int pcspeaker_post_load(void *opaque, unsigned version, struct error *err)
{
	struct pcspeaker *spk = opaque;

	spk->control &= B_WRITABLE;
	return 0;
}

static const struct state_desc pcspeaker_desc = {
	.name = "pcspeaker",
	.version = 1,
	.fields = pcspeaker_fields,
	.post_load = pcspeaker_post_load,
};

struct pcspeaker *pcspeaker_new(const struct device_env *env, struct i8254 *pit)
{
	struct pcspeaker *spk = xcalloc(1, sizeof(*spk));

	spk->pit = pit;
	spk->clock = env->clock;
	spk->io = env->io;
	spk->states = env->states;
	spk->range = iobus_add(env->io, "pcspk", PORT_B, 1, &portb_ops, spk);
	state_register(env->states, &pcspeaker_desc, 0, spk);
	return spk;
}

void pcspeaker_free(struct pcspeaker *spk)
{
	if (!spk)
		return;
	iobus_remove(spk->io, spk->range);
	state_unregister(spk->states, spk);
	free(spk);
}
