/* SPDX-License-Identifier: MIT */
/*
 * A bare machine for device tests: buses, a registry, and a clock that moves only when the test
 * says so. Include it from one .c file a program.
 */
#ifndef TESTS_DEVICES_RIG_H
#define TESTS_DEVICES_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/device.h"
#include "core/iobus.h"
#include "core/irq.h"
#include "core/memory.h"
#include "core/state.h"
#include "lib/loop.h"
#include "lib/text.h"
#include "tests/unit/devices/manual_clock.h"
#include <stdlib.h>

/* ---- the machine ---- */

struct rig {
	struct device_env env;
	struct machine_requests requests;
	unsigned resets;
	int exit_status; /* -1: not asked for */
	bool line[24];   /* levels of rig_line() */
	unsigned edges[24];
};

static void rig_reset_request(void *opaque)
{
	((struct rig *)opaque)->resets++;
}

static void rig_exit_request(void *opaque, int status)
{
	((struct rig *)opaque)->exit_status = status;
}

static void rig_set_line(void *opaque, int n, bool level)
{
	struct rig *rig = opaque;
	if (level && !rig->line[n])
		rig->edges[n]++;
	rig->line[n] = level;
}

/* An interrupt line whose level and rising edges the test can see. */
static __attribute__((unused)) struct irq_line rig_line(struct rig *rig, int n)
{
	return (struct irq_line){rig_set_line, rig, n};
}

static __attribute__((unused)) void rig_init(struct rig *rig)
{
	*rig = (struct rig){.exit_status = -1};
	rig->requests = (struct machine_requests){
		.reset = rig_reset_request, .exit = rig_exit_request, .opaque = rig};
	rig->env.mem = memory_new();
	rig->env.io = iobus_new();
	rig->env.loop = loop_new(NULL);
	rig->env.clock = clock_new(rig->env.loop);
	rig->env.states = state_registry_new();
	rig->env.requests = &rig->requests;
	loop_lock(rig->env.loop);
}

static __attribute__((unused)) void rig_fini(struct rig *rig)
{
	loop_unlock(rig->env.loop);
	state_registry_free(rig->env.states);
	clock_free(rig->env.clock);
	loop_free(rig->env.loop);
	iobus_free(rig->env.io);
	memory_free(rig->env.mem);
}

static __attribute__((unused)) uint8_t inb(struct rig *rig, uint16_t port)
{
	return (uint8_t)iobus_read(rig->env.io, port, 1);
}

static __attribute__((unused)) void outb(struct rig *rig, uint16_t port, uint8_t value)
{
	iobus_write(rig->env.io, port, 1, value);
}

/* Saves all states, resets the machine and loads them back. */
static __attribute__((unused)) void rig_save_reset_load(struct rig *rig)
{
	struct strbuf image = STRBUF_INIT, again = STRBUF_INIT;

	state_save(rig->env.states, &image);
	state_reset_all(rig->env.states);
	assert_int_equal(state_load(rig->env.states, image.data, image.len, NULL), 0);
	state_save(rig->env.states, &again);
	assert_int_equal(image.len, again.len);
	assert_memory_equal(image.data, again.data, image.len);
	strbuf_free(&image);
	strbuf_free(&again);
}

#endif
