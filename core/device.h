/* SPDX-License-Identifier: MIT */
/*
 * What every device constructor is handed: the buses, the clock and the registry of its machine. A
 * device is one constructor `x_new(const struct device_env *, where, irq lines..., backend)` that
 * registers its ports, memory and state; everything it made is freed by x_free().
 */
#ifndef CORE_DEVICE_H
#define CORE_DEVICE_H

struct memory;
struct iobus;
struct clock;
struct loop;
struct state_registry;
struct msi_controller;
struct doorbell_ops;

/* What a device may ask of the machine. All may be called with the lock held, from any thread; they
 * act soon. */
struct machine_requests {
	void (*reset)(void *opaque);    /* system reset (i8042, port 92h, 0xCF9, triple fault) */
	void (*shutdown)(void *opaque); /* soft-off by the guest */
	/* Ends the program with this exit status (isa-debug-exit). */
	void (*exit)(void *opaque, int status);
	void *opaque;
};

struct device_env {
	struct memory *mem;
	struct iobus *io;
	struct clock *clock;
	struct loop *loop;
	struct state_registry *states;
	const struct machine_requests *requests;
	const struct msi_controller *msi;     /* core/irq.h; NULL: messages go nowhere */
	const struct doorbell_ops *doorbells; /* core/doorbell.h; NULL: there are none */
};

#endif
