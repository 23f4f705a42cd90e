/* SPDX-License-Identifier: MIT */
/*
 * The machine's life: running, stopped, reset, ended.
 *
 * Devices and vCPUs ask for a reset or the end at any moment, on any thread; the request is noted
 * and the loop carries it out with all vCPUs paused. The virtual clock runs only while the vCPUs
 * do.
 */
#include "core/current_cpu.h"
#include "core/state.h"
#include "devices/piix4_pm.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "net/net.h"
#include "vmm/machine.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

const char *run_state_name(enum run_state state)
{
	static const char *const names[] = {
		[RUN_PRELAUNCH] = "prelaunch",
		[RUN_RUNNING] = "running",
		[RUN_PAUSED] = "paused",
		[RUN_SHUTDOWN] = "shutdown",
		[RUN_INTERNAL_ERROR] = "internal-error",
		[RUN_IO_ERROR] = "io-error",
	};
	return names[state];
}

const char *run_cause_name(enum run_cause cause)
{
	static const char *const names[] = {
		[CAUSE_HOST_QUIT] = "host-qmp-quit", [CAUSE_HOST_RESET] = "host-qmp-system-reset",
		[CAUSE_HOST_SIGNAL] = "host-signal", [CAUSE_HOST_UI] = "host-ui",
		[CAUSE_HOST_ERROR] = "host-error",   [CAUSE_GUEST_SHUTDOWN] = "guest-shutdown",
		[CAUSE_GUEST_RESET] = "guest-reset",
	};
	return names[cause];
}

void machine_add_listener(struct machine *m, struct machine_listener *listener)
{
	list_push_back(&m->listeners, &listener->link);
}

void machine_remove_listener(struct machine_listener *listener)
{
	list_remove(&listener->link);
}

void machine_emit(struct machine *m, enum machine_event event, enum run_cause cause,
		  const char *drive_id, bool tray_open)
{
	struct list *it, *next;
	list_for_each_safe(it, next, &m->listeners)
	{
		struct machine_listener *l = list_entry(it, struct machine_listener, link);
		l->event(l->opaque, event, cause, drive_id, tray_open);
	}
}

bool machine_running(const struct machine *m)
{
	return m->state == RUN_RUNNING;
}

static void halt_vcpus(struct machine *m)
{
	if (m->state != RUN_RUNNING)
		return;
	m->engine->ops->pause(m->engine);
	clock_stop(m->clock);
	net_hold_cards(m->net, true);
}

static void set_running(struct machine *m)
{
	m->state = RUN_RUNNING;
	clock_start(m->clock);
	net_hold_cards(m->net, false);
	m->engine->ops->resume(m->engine);
}

static void drain_drives(struct machine *m)
{
	for (unsigned n = 0; n < DRIVE_PLACES; n++)
		if (drives_at(&m->drives, n))
			drive_drain(drives_at(&m->drives, n));
}

/* The machine goes on: what an error stopped is tried again. */
static void retry_drives(struct machine *m)
{
	for (unsigned n = 0; n < DRIVE_PLACES; n++)
		if (drives_at(&m->drives, n))
			drive_retry(drives_at(&m->drives, n));
}

/* The machine starts anew, and so do its drives. */
static void give_up_held_requests(struct machine *m)
{
	for (unsigned n = 0; n < DRIVE_PLACES; n++)
		if (drives_at(&m->drives, n))
			drive_fail_held(drives_at(&m->drives, n));
}

void machine_drive_failed(void *opaque, struct drive *drive, const struct drive_error *error)
{
	struct machine *m = opaque;
	m->drive_error = error;
	machine_emit(m, EVENT_BLOCK_IO_ERROR, CAUSE_HOST_ERROR, drive_id(drive), false);
	m->drive_error = NULL;
	if (error->action != DRIVE_ERROR_STOP)
		return;
	m->io_error_stop = true;
	loop_call_schedule(m->loop, &m->request);
}

static void enter_stopped(struct machine *m, enum run_state state)
{
	bool was_running = m->state == RUN_RUNNING;
	halt_vcpus(m);
	m->state = state;
	drain_drives(m);
	if (was_running)
		machine_emit(m, EVENT_STOP, CAUSE_HOST_QUIT, NULL, false);
}

void machine_stop(struct machine *m)
{
	if (m->state == RUN_RUNNING)
		enter_stopped(m, RUN_PAUSED);
}

int machine_cont(struct machine *m, struct error *err)
{
	if (m->state == RUN_RUNNING && !m->io_error_stop)
		return 0;
	/* Whoever goes on when it hears of the error may be faster than the stop. */
	if (m->state == RUN_RUNNING)
		enter_stopped(m, RUN_IO_ERROR);
	if (m->state == RUN_INTERNAL_ERROR)
		return error_set(err, EPERM,
				 "the machine stopped on an internal error; system_reset first");
	if (m->state == RUN_SHUTDOWN)
		return error_set(err, EPERM, "the guest has powered off; system_reset first");
	m->io_error_stop = false;
	retry_drives(m);
	set_running(m);
	machine_emit(m, EVENT_RESUME, CAUSE_HOST_QUIT, NULL, false);
	return 0;
}

void machine_powerdown(struct machine *m)
{
	machine_emit(m, EVENT_POWERDOWN, CAUSE_HOST_QUIT, NULL, false);
	if (m->dev.pm)
		piix4_pm_power_button(m->dev.pm);
}

static bool guest_caused(enum run_cause cause)
{
	return cause == CAUSE_GUEST_RESET || cause == CAUSE_GUEST_SHUTDOWN;
}

static void end(struct machine *m, enum run_cause cause)
{
	if (m->quitting)
		return;
	m->quitting = true;
	if (m->state == RUN_RUNNING)
		halt_vcpus(m);
	m->state = guest_caused(cause)       ? RUN_SHUTDOWN
		   : m->state == RUN_RUNNING ? RUN_PAUSED
					     : m->state;
	for (unsigned n = 0; n < DRIVE_PLACES; n++)
		if (drives_at(&m->drives, n))
			drive_ending(drives_at(&m->drives, n));
	drain_drives(m);
	loop_quit(m->loop);
}

static void do_shutdown(struct machine *m, enum run_cause cause)
{
	machine_emit(m, EVENT_SHUTDOWN, cause, NULL, false);
	if (m->options->no_shutdown)
		enter_stopped(m, RUN_SHUTDOWN);
	else
		end(m, cause);
}

static void do_reset(struct machine *m, enum run_cause cause)
{
	struct error err = ERROR_INIT;
	if (m->options->no_reboot) {
		do_shutdown(m, cause);
		return;
	}
	bool was_running = m->state == RUN_RUNNING;
	halt_vcpus(m);
	drain_drives(m);
	give_up_held_requests(m);
	m->io_error_stop = false;
	if (machine_reset_all(m, &err) < 0) {
		report("%s", err.text);
		m->exit_status = 1;
		end(m, CAUSE_HOST_ERROR);
		return;
	}
	machine_emit(m, EVENT_RESET, cause, NULL, false);
	if (was_running)
		set_running(m);
	else
		m->state = RUN_PRELAUNCH;
}

static void report_internal_error(struct machine *m)
{
	report("%s", m->internal_error);
	m->internal_error[0] = 0;
	enter_stopped(m, RUN_INTERNAL_ERROR);
	if (!m->monitors && !m->qmps) {
		/* Nobody could look at it or go on. */
		m->exit_status = 1;
		end(m, CAUSE_HOST_ERROR);
	}
}

/* Carries out what was asked for since the last turn of the loop. */
static void serve_requests(void *opaque)
{
	struct machine *m = opaque;
	if (m->quitting)
		return;
	if (m->quit_requested) {
		m->quit_requested = false;
		machine_emit(m, EVENT_SHUTDOWN, m->shutdown_cause, NULL, false);
		end(m, m->shutdown_cause);
		return;
	}
	if (m->io_error_stop) {
		m->io_error_stop = false;
		if (m->state == RUN_RUNNING)
			enter_stopped(m, RUN_IO_ERROR);
	}
	if (m->internal_error[0])
		report_internal_error(m);
	if (m->shutdown_requested) {
		m->shutdown_requested = m->reset_requested = false;
		do_shutdown(m, m->shutdown_cause);
	}
	if (m->reset_requested && !m->quitting) {
		m->reset_requested = false;
		do_reset(m, m->reset_cause);
	}
}

/* The loop will carry a request out. When a guest's access asked for it, what follows that access
 * must not run. */
static void schedule_request(struct machine *m)
{
	if (current_cpu >= 0 && m->state == RUN_RUNNING)
		m->engine->ops->hold(m->engine);
	loop_call_schedule(m->loop, &m->request);
}

void machine_request_reset(struct machine *m, enum run_cause cause)
{
	m->reset_requested = true;
	m->reset_cause = cause;
	schedule_request(m);
}

void machine_request_shutdown(struct machine *m, enum run_cause cause)
{
	m->shutdown_requested = true;
	m->shutdown_cause = cause;
	schedule_request(m);
}

void machine_request_quit(struct machine *m, int status, enum run_cause cause)
{
	m->quit_requested = true;
	m->exit_status = status;
	m->shutdown_cause = cause;
	schedule_request(m);
}

static void device_reset_request(void *opaque)
{
	machine_request_reset(opaque, CAUSE_GUEST_RESET);
}

static void device_shutdown_request(void *opaque)
{
	machine_request_shutdown(opaque, CAUSE_GUEST_SHUTDOWN);
}

static void device_exit_request(void *opaque, int status)
{
	machine_request_quit(opaque, status, CAUSE_GUEST_SHUTDOWN);
}

void machine_requests_init(struct machine *m)
{
	loop_call_init(&m->request, serve_requests, m);
	m->requests = (struct machine_requests){
		.reset = device_reset_request,
		.shutdown = device_shutdown_request,
		.exit = device_exit_request,
		.opaque = m,
	};
}

void machine_engine_event(void *opaque, unsigned cpu, enum engine_event event, const char *detail)
{
	struct machine *m = opaque;
	switch (event) {
	case ENGINE_TRIPLE_FAULT:
		trace(TRACE_CPU, "cpu %u: triple fault", cpu);
		machine_request_reset(m, CAUSE_GUEST_RESET);
		break;
	case ENGINE_INTERNAL_ERROR:
		snprintf(m->internal_error, sizeof(m->internal_error), "%s", detail);
		loop_call_schedule(m->loop, &m->request);
		break;
	case ENGINE_DIFFERENCE:
		report("%s", detail);
		machine_request_quit(m, 1, CAUSE_HOST_ERROR);
		break;
	case ENGINE_BREAKPOINT: break;
	}
}

int machine_cpu_state(struct machine *m, unsigned cpu, struct cpu_state *state, struct error *err)
{
	bool was_running = m->state == RUN_RUNNING;
	if (was_running)
		m->engine->ops->pause(m->engine);
	int r = m->engine->ops->get_state(m->engine, cpu, state, err);
	if (was_running)
		m->engine->ops->resume(m->engine);
	return r;
}

static void signal_arrived(void *opaque, unsigned events)
{
	struct machine *m = opaque;
	struct signalfd_siginfo info;
	(void)events;
	while (read(m->signal_fd, &info, sizeof(info)) == sizeof(info)) {
		/* QEMU says who ended it; a harness that kills by mistake wants to know. */
		report("terminating on signal %u from pid %u", info.ssi_signo, info.ssi_pid);
		machine_request_quit(m, 0, CAUSE_HOST_SIGNAL);
	}
}

static int watch_signals(struct machine *m, struct error *err)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	m->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (m->signal_fd < 0)
		return error_errno(err, errno, "cannot watch for signals");
	m->signal_watch = loop_fd_new(m->loop, m->signal_fd, LOOP_READ, signal_arrived, m, err);
	return m->signal_watch ? 0 : -err->code;
}

void machine_unwatch_signals(struct machine *m)
{
	if (m->signal_watch)
		loop_fd_free(m->signal_watch);
	if (m->signal_fd >= 0)
		close(m->signal_fd);
}

void machine_block_signals(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
}

int machine_run(struct machine *m, struct error *err)
{
	loop_lock(m->loop);
	int r = watch_signals(m, err);
	if (r == 0)
		r = m->engine->ops->start(m->engine, err);
	if (r == 0) {
		m->started = true;
		if (!m->options->start_stopped)
			set_running(m);
	}
	loop_unlock(m->loop);
	if (r < 0)
		return r;
	loop_run(m->loop);
	return m->exit_status;
}
