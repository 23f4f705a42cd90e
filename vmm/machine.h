/* SPDX-License-Identifier: MIT */
/*
 * The machine: everything that one PC is made of, and its running, stopping, resetting and ending.
 *
 * All functions need the machine lock and run on the loop's thread, unless noted. machine_new() to
 * machine_free() is built in machine.c (what the PC consists of) and run.c (its life).
 */
#ifndef VMM_MACHINE_H
#define VMM_MACHINE_H

#include "core/chardev.h"
#include "core/cpu_model.h"
#include "core/device.h"
#include "core/display.h"
#include "core/doorbell.h"
#include "core/input.h"
#include "core/irq.h"
#include "core/irq_or.h"
#include "lib/list.h"
#include "lib/loop.h"
#include "vmm/drives.h"
#include "vmm/engine.h"
#include "vmm/keys.h"
#include "vmm/options.h"

struct clock;

/* QEMU's RunState names are in run_state_name(). */
enum run_state {
	RUN_PRELAUNCH, /* -S: never ran yet */
	RUN_RUNNING,
	RUN_PAUSED,
	RUN_SHUTDOWN, /* the guest powered off and -no-shutdown holds the machine */
	RUN_INTERNAL_ERROR,
	RUN_IO_ERROR, /* a drive's rerror= or werror= stopped it; machine_cont() tries again */
};

/* Why a machine resets or ends (QEMU's ShutdownCause names). */
enum run_cause {
	CAUSE_HOST_QUIT,  /* quit in a monitor, Ctrl-A x */
	CAUSE_HOST_RESET, /* system_reset */
	CAUSE_HOST_SIGNAL,
	CAUSE_HOST_UI, /* window closed */
	CAUSE_HOST_ERROR,
	CAUSE_GUEST_SHUTDOWN,
	CAUSE_GUEST_RESET, /* triple faults included */
};

enum machine_event {
	EVENT_SHUTDOWN, /* with a cause */
	EVENT_RESET,    /* with a cause */
	EVENT_STOP,
	EVENT_RESUME,
	EVENT_POWERDOWN,
	EVENT_TRAY_MOVED,     /* with a drive id */
	EVENT_BLOCK_IO_ERROR, /* with a drive id; machine.drive_error has the rest */
};

/* Told about each event, in the order of registration. */
struct machine_listener {
	void (*event)(void *opaque, enum machine_event event, enum run_cause cause,
		      const char *drive_id, bool tray_open);
	void *opaque;
	struct list link;
};

/* The devices, by type; NULL where the machine has none. */
struct machine_devices {
	struct i8259 *pic;
	struct i8254 *pit;
	struct lapic_set *lapics;
	struct ioapic *ioapic;
	struct i8237 *dma;
	struct mc146818 *rtc;
	struct i8042 *kbc;
	struct port92 *port92;
	struct coprocessor *coprocessor;
	struct pcspeaker *speaker;
	struct serial16550 *serial[4];
	struct parallel *parallel[3];
	struct debugcon *debugcon[4];
	struct debug_exit *debug_exit;
	struct pci_bus *pci;
	struct i440fx *host_bridge;
	struct piix3 *piix3;
	struct piix3_ide *ide;
	struct piix4_pm *pm;
	struct fdc *fdc;
	struct vga *vga;
	struct fw_cfg *fw_cfg;
};

enum { ISA_IRQS = 16 };

struct machine {
	struct options *options;
	struct loop *loop;
	struct clock *clock;
	struct memory *mem;
	struct iobus *io;
	struct state_registry *states;
	struct device_env env;
	struct machine_requests requests;
	struct msi_controller msi;
	struct doorbell_ops doorbells;
	struct cpu_model model;
	struct engine *engine;
	struct strbuf notes; /* on the choice of the engine, for the user; a line each */
	bool kernel_irqchip;
	struct irq_or *isa[ISA_IRQS]; /* machine_isa_line() */
	struct mem_region *ram;
	struct machine_devices dev;
	uint16_t debugcon_port[4]; /* of dev.debugcon */
	struct machine_drives drives;
	struct list pci_devices; /* struct pci_unit (pci_devices.h) */
	struct net *net;
	struct announcer *announcer;    /* vmm/net_announce.c; NULL until it is asked for */
	struct nics *nics;              /* nics.c */
	struct net_port **nic_backends; /* of each -nic */
	struct display *display;        /* NULL without a display adapter */
	struct input input;
	struct key_typist *typist;
	struct firmware *firmware;
	struct list chardevs; /* struct named_chardev (backends.h) */
	struct sdl_ui *sdl;   /* NULL without a window */
	struct machine_listener window_listener;
	struct monitor *monitors;
	struct qmp *qmps;

	enum run_state state;
	bool started; /* the engine's threads exist */
	bool quitting;
	int exit_status;
	struct list listeners;

	/* Requests from devices and vCPUs, carried out by the loop. */
	struct loop_call request;
	bool reset_requested, shutdown_requested, quit_requested;
	enum run_cause reset_cause, shutdown_cause;
	char internal_error[4096];
	bool io_error_stop;
	const struct drive_error *drive_error; /* while EVENT_BLOCK_IO_ERROR is told */

	int signal_fd;
	struct loop_fd *signal_watch;
};

/* Builds the whole PC; nothing runs yet. NULL with one sentence. `o` must outlive the machine. Lock
 * not needed. */
struct machine *machine_new(struct options *o, struct error *err);
void machine_free(struct machine *m);
/* Starts (unless -S), runs the event loop until the machine ends, and returns the exit status. Lock
 * not held. */
int machine_run(struct machine *m, struct error *err);

/* Blocks the signals that machine_run() reads from a descriptor; before any thread is created. */
void machine_block_signals(void);

const char *run_state_name(enum run_state state);
const char *run_cause_name(enum run_cause cause);

/* Any thread, lock held: carried out soon by the loop. */
void machine_request_reset(struct machine *m, enum run_cause cause);
void machine_request_shutdown(struct machine *m, enum run_cause cause);
/* Ends minivm whatever -no-shutdown says. Also from a signal handler's loop_call. */
void machine_request_quit(struct machine *m, int status, enum run_cause cause);

/* CPUs and clock stand still, and no request of a drive is in flight, when it returns. */
void machine_stop(struct machine *m);
/* Goes on, and tries again what an error of a drive stopped. Fails after an internal error, and in
 * the shutdown state until a reset. */
int machine_cont(struct machine *m, struct error *err);
/* The ACPI power button. */
void machine_powerdown(struct machine *m);
bool machine_running(const struct machine *m);
/* A listener belongs to the caller; it may remove itself, but no other, while it is told. */
void machine_add_listener(struct machine *m, struct machine_listener *listener);
void machine_remove_listener(struct machine_listener *listener);
void machine_emit(struct machine *m, enum machine_event event, enum run_cause cause,
		  const char *drive_id, bool tray_open);

/* Puts devices and CPUs in their power-on state; vCPUs paused. Part of machine.c, called by run.c.
 */
int machine_reset_all(struct machine *m, struct error *err);
/* A new input of ISA interrupt n, which several devices may share. For construction time. */
struct irq_line machine_isa_line(struct machine *m, int n);
/* drive_on_error() of every drive. */
void machine_drive_failed(void *opaque, struct drive *drive, const struct drive_error *error);
/* Called by the engine (struct engine_config). */
void machine_engine_event(void *opaque, unsigned cpu, enum engine_event event, const char *detail);
void machine_requests_init(struct machine *m);
void machine_unwatch_signals(struct machine *m);

/* The state of a CPU, pausing the machine around it if it runs. */
int machine_cpu_state(struct machine *m, unsigned cpu, struct cpu_state *state, struct error *err);

#endif
