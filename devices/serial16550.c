/* SPDX-License-Identifier: MIT */
/*
 * National PC16550D UART with its 16-byte FIFOs, in front of a chardev.
 *
 *   offset  DLAB=0 read  DLAB=0 write  DLAB=1
 *   0       RBR          THR           DLL
 *   1       IER          IER           DLM
 *   2       IIR          FCR
 *   3 LCR   4 MCR   5 LSR   6 MSR   7 SCR
 *
 * What is sent goes to the chardev at once; when that is full the bytes stay in the transmit FIFO,
 * THRE stays clear and a timer tries again, so nothing is lost and the guest waits as it would for
 * a slow line. What arrives is taken only while there is room in the receive FIFO.
 *
 * The line is not paced by the divisor; it only determines when the receive timeout interrupt comes
 * (four character times). Interrupts are not gated by OUT2, as guests written for other emulators
 * may leave it clear.
 *
 * Document: National Semiconductor PC16550D datasheet, "Registers", "FIFO Interrupt Mode
 * Operation". Left out: parity and framing errors (a chardev has none), DMA mode signals.
 */
#include "devices/serial16550.h"
#include "core/chardev.h"
#include "core/iobus.h"
#include "core/state.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "lib/text.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	PORTS = 8,
	FIFO_SIZE = 16,
	CLOCK_HZ = 115200, /* 1.8432 MHz / 16: the bit rate at divisor 1 */

	REG_DATA = 0,
	REG_IER = 1,
	REG_IIR_FCR = 2,
	REG_LCR = 3,
	REG_MCR = 4,
	REG_LSR = 5,
	REG_MSR = 6,
	REG_SCR = 7,

	IER_RDA = 1 << 0,
	IER_THRE = 1 << 1,
	IER_RLS = 1 << 2,
	IER_MSI = 1 << 3,
	IER_WRITABLE = 0x0F,

	IIR_NONE = 0x01,
	IIR_MSI = 0x00,
	IIR_THRE = 0x02,
	IIR_RDA = 0x04,
	IIR_RLS = 0x06,
	IIR_TIMEOUT = 0x0C,
	IIR_FIFO = 0xC0,

	FCR_ENABLE = 1 << 0,
	FCR_CLEAR_RX = 1 << 1,
	FCR_CLEAR_TX = 1 << 2,
	FCR_TRIGGER_SHIFT = 6,

	LCR_WORD_LENGTH = 3,
	LCR_STOP = 1 << 2,
	LCR_PARITY = 1 << 3,
	LCR_DLAB = 1 << 7,

	MCR_DTR = 1 << 0,
	MCR_RTS = 1 << 1,
	MCR_OUT1 = 1 << 2,
	MCR_OUT2 = 1 << 3,
	MCR_LOOP = 1 << 4,
	MCR_WRITABLE = 0x1F,

	LSR_DR = 1 << 0,
	LSR_OE = 1 << 1,
	LSR_BI = 1 << 4,
	LSR_ERRORS = 0x1E,
	LSR_THRE = 1 << 5,
	LSR_TEMT = 1 << 6,
	LSR_FIFO_ERROR = 1 << 7,

	MSR_DCTS = 1 << 0,
	MSR_DDSR = 1 << 1,
	MSR_TERI = 1 << 2,
	MSR_DDCD = 1 << 3,
	MSR_DELTAS = 0x0F,
	MSR_CTS = 1 << 4,
	MSR_DSR = 1 << 5,
	MSR_RI = 1 << 6,
	MSR_DCD = 1 << 7,

	RETRY_NS = 2000000, /* how soon a full chardev is tried again */
};

struct serial16550 {
	uint8_t ier, lcr, mcr, lsr_errors, msr, scr;
	uint16_t divisor;
	bool fifo_enabled;
	uint8_t trigger; /* receive FIFO bytes that make RDA */
	uint8_t rx[FIFO_SIZE], rx_break[FIFO_SIZE];
	uint8_t rx_count;
	uint8_t tx[FIFO_SIZE];
	uint8_t tx_count;
	bool thre_pending; /* the THR-empty interrupt was not taken yet */
	bool timeout_pending;
	struct timer timeout, retry;

	struct irq_line irq;
	struct chardev *chr;
	struct clock *clock;
	struct iobus *io;
	struct io_range *range;
	struct state_registry *states;
	char name[16];
};

static const struct state_field serial_fields[] = {
	STATE_UINT(serial16550, ier),
	STATE_UINT(serial16550, lcr),
	STATE_UINT(serial16550, mcr),
	STATE_UINT(serial16550, lsr_errors),
	STATE_UINT(serial16550, msr),
	STATE_UINT(serial16550, scr),
	STATE_UINT(serial16550, divisor),
	STATE_UINT(serial16550, fifo_enabled),
	STATE_UINT(serial16550, trigger),
	STATE_BYTES(serial16550, rx),
	STATE_BYTES(serial16550, rx_break),
	STATE_UINT(serial16550, rx_count),
	STATE_BYTES(serial16550, tx),
	STATE_UINT(serial16550, tx_count),
	STATE_UINT(serial16550, thre_pending),
	STATE_UINT(serial16550, timeout_pending),
	STATE_TIMER(serial16550, timeout),
	STATE_TIMER(serial16550, retry),
	STATE_END,
};

/* ---- interrupts (datasheet, "Interrupt Identification Register") ---- */

static uint8_t line_status(const struct serial16550 *u)
{
	uint8_t lsr = u->lsr_errors;

	if (u->rx_count)
		lsr |= LSR_DR;
	if (u->tx_count == 0)
		lsr |= LSR_THRE | LSR_TEMT;
	if (u->fifo_enabled && memchr(u->rx_break, 1, u->rx_count))
		lsr |= LSR_FIFO_ERROR;
	return lsr;
}

/* The highest-priority pending interrupt. */
static uint8_t interrupt_id(const struct serial16550 *u)
{
	if ((u->ier & IER_RLS) && u->lsr_errors)
		return IIR_RLS;
	if (u->ier & IER_RDA) {
		if (u->rx_count && (!u->fifo_enabled || u->rx_count >= u->trigger))
			return IIR_RDA;
		if (u->timeout_pending)
			return IIR_TIMEOUT;
	}
	if ((u->ier & IER_THRE) && u->thre_pending)
		return IIR_THRE;
	if ((u->ier & IER_MSI) && (u->msr & MSR_DELTAS))
		return IIR_MSI;
	return IIR_NONE;
}

static void update_irq(struct serial16550 *u)
{
	irq_set(&u->irq, interrupt_id(u) != IIR_NONE);
}

/* ---- receiving ---- */

/* Four times the time of a character at the current rate. */
static uint64_t timeout_ns(const struct serial16550 *u)
{
	unsigned bits = 1 + 5 + (u->lcr & LCR_WORD_LENGTH) + (u->lcr & LCR_PARITY ? 1 : 0) +
			(u->lcr & LCR_STOP ? 2 : 1);
	unsigned divisor = u->divisor ? u->divisor : 1;
	return NS_PER_SEC / CLOCK_HZ * divisor * bits * 4;
}

static void restart_timeout(struct serial16550 *u)
{
	u->timeout_pending = false;
	if (u->fifo_enabled && u->rx_count)
		timer_set(&u->timeout, clock_now(u->clock) + timeout_ns(u));
	else
		timer_cancel(&u->timeout);
}

static void timed_out(void *opaque)
{
	struct serial16550 *u = opaque;

	u->timeout_pending = u->rx_count > 0;
	update_irq(u);
}

static void push_rx(struct serial16550 *u, uint8_t byte, bool is_break)
{
	unsigned room = u->fifo_enabled ? FIFO_SIZE : 1;

	if (u->rx_count >= room) {
		u->lsr_errors |= LSR_OE;
		/* Without FIFO the new character replaces the old one; with it, it is lost. */
		if (u->fifo_enabled)
			return;
		u->rx_count = 0;
	}
	u->rx[u->rx_count] = byte;
	u->rx_break[u->rx_count++] = is_break;
	if (is_break && u->rx_count == 1)
		u->lsr_errors |= LSR_BI;
}

static size_t can_receive(void *opaque)
{
	struct serial16550 *u = opaque;

	if (u->mcr & MCR_LOOP)
		return 0;
	return (u->fifo_enabled ? (size_t)FIFO_SIZE : 1u) - u->rx_count;
}

static void receive(void *opaque, const uint8_t *buf, size_t len)
{
	struct serial16550 *u = opaque;

	for (size_t i = 0; i < len; i++)
		push_rx(u, buf[i], false);
	trace(TRACE_SERIAL, "%s: %zu bytes received", u->name, len);
	restart_timeout(u);
	update_irq(u);
}

static void receive_break(void *opaque)
{
	struct serial16550 *u = opaque;

	if (u->mcr & MCR_LOOP)
		return;
	push_rx(u, 0, true);
	restart_timeout(u);
	update_irq(u);
}

static uint8_t read_rbr(struct serial16550 *u)
{
	if (u->rx_count == 0)
		return 0;
	uint8_t byte = u->rx[0];
	u->rx_count--;
	memmove(u->rx, u->rx + 1, u->rx_count);
	memmove(u->rx_break, u->rx_break + 1, u->rx_count);
	/* Errors are revealed when their character is at the top of the FIFO. */
	if (u->rx_count && u->rx_break[0])
		u->lsr_errors |= LSR_BI;
	restart_timeout(u);
	update_irq(u);
	if (u->chr)
		chardev_accept_input(u->chr);
	return byte;
}

/* ---- sending ---- */

/* Moves the transmit FIFO on. THRE becomes pending when it runs empty. */
static void transmit(struct serial16550 *u)
{
	size_t sent = u->tx_count;

	if (u->tx_count == 0)
		return;
	if (u->mcr & MCR_LOOP) {
		for (unsigned i = 0; i < u->tx_count; i++)
			push_rx(u, u->tx[i], false);
		restart_timeout(u);
	} else if (u->chr) {
		sent = chardev_write(u->chr, u->tx, u->tx_count);
		if (sent > u->tx_count)
			sent = u->tx_count;
	}
	u->tx_count = (uint8_t)(u->tx_count - sent);
	memmove(u->tx, u->tx + sent, u->tx_count);
	if (u->tx_count == 0)
		u->thre_pending = true;
	else
		timer_set(&u->retry, clock_now(u->clock) + RETRY_NS);
	update_irq(u);
}

static void retry_due(void *opaque)
{
	transmit(opaque);
}

static void write_thr(struct serial16550 *u, uint8_t byte)
{
	unsigned room = u->fifo_enabled ? FIFO_SIZE : 1;

	u->thre_pending = false;
	update_irq(u);
	if (u->tx_count >= room)
		u->tx_count = (uint8_t)(room - 1); /* overwrites the last, as the chip does */
	u->tx[u->tx_count++] = byte;
	if (!u->retry.pending)
		transmit(u);
}

static size_t serial_write_block(void *opaque, uint16_t port, unsigned size, const void *buf,
				 size_t count)
{
	struct serial16550 *u = opaque;
	const uint8_t *p = buf;
	bool data = (port & 7) == REG_DATA && !(u->lcr & LCR_DLAB);

	if (!data || !u->chr || (u->mcr & MCR_LOOP) || u->tx_count) {
		iobus_write(u->io, port, 1, p[0]);
		return 1;
	}
	/* A guest that writes a whole string without looking at THRE. */
	size_t sent = chardev_write(u->chr, p, count);
	u->thre_pending = true;
	update_irq(u);
	if (sent == 0 || sent > count) {
		write_thr(u, p[0]);
		return 1;
	}
	return sent;
}

/* ---- modem lines ---- */

/* The inputs CTS, DSR, RI, DCD as they are now. */
static uint8_t modem_inputs(const struct serial16550 *u)
{
	if (!(u->mcr & MCR_LOOP))
		return MSR_CTS | MSR_DSR | MSR_DCD;
	return (uint8_t)((u->mcr & MCR_RTS ? MSR_CTS : 0) | (u->mcr & MCR_DTR ? MSR_DSR : 0) |
			 (u->mcr & MCR_OUT1 ? MSR_RI : 0) | (u->mcr & MCR_OUT2 ? MSR_DCD : 0));
}

static void update_modem(struct serial16550 *u)
{
	uint8_t old = u->msr, now = modem_inputs(u), changed = old ^ now;
	uint8_t deltas = old & MSR_DELTAS;

	deltas |= (changed & MSR_CTS ? MSR_DCTS : 0) | (changed & MSR_DSR ? MSR_DDSR : 0) |
		  (changed & MSR_DCD ? MSR_DDCD : 0);
	if ((changed & MSR_RI) && !(now & MSR_RI))
		deltas |= MSR_TERI; /* trailing edge only */
	u->msr = now | deltas;
	update_irq(u);
}

/* ---- registers ---- */

static void write_fcr(struct serial16550 *u, uint8_t value)
{
	static const uint8_t trigger[4] = {1, 4, 8, 14};
	bool enable = value & FCR_ENABLE;

	/* "When changing from FIFO Mode to 16450 Mode and vice versa, data is automatically cleared
	 * from the FIFOs." */
	if (enable != u->fifo_enabled)
		value |= FCR_CLEAR_RX | FCR_CLEAR_TX;
	u->fifo_enabled = enable;
	u->trigger = enable ? trigger[value >> FCR_TRIGGER_SHIFT] : 1;
	if (value & FCR_CLEAR_RX) {
		u->rx_count = 0;
		u->lsr_errors &= (uint8_t)~LSR_BI;
		restart_timeout(u);
	}
	if ((value & FCR_CLEAR_TX) && u->tx_count) {
		u->tx_count = 0;
		u->thre_pending = true;
		timer_cancel(&u->retry);
	}
	update_irq(u);
	if (u->chr)
		chardev_accept_input(u->chr);
}

static uint32_t serial_read(void *opaque, uint16_t port, unsigned size)
{
	struct serial16550 *u = opaque;
	uint8_t value;

	switch (port & 7) {
	case REG_DATA: return u->lcr & LCR_DLAB ? (uint8_t)u->divisor : read_rbr(u);
	case REG_IER: return u->lcr & LCR_DLAB ? (uint32_t)(u->divisor >> 8) : u->ier;
	case REG_IIR_FCR:
		value = interrupt_id(u);
		if (value == IIR_THRE) {
			/* "Reading the IIR register (if source of interrupt)" resets it. */
			u->thre_pending = false;
			update_irq(u);
		}
		return value | (u->fifo_enabled ? IIR_FIFO : 0u);
	case REG_LCR: return u->lcr;
	case REG_MCR: return u->mcr;
	case REG_LSR:
		value = line_status(u);
		if (u->lsr_errors) {
			if (u->rx_count && (u->lsr_errors & LSR_BI))
				u->rx_break[0] = 0;
			u->lsr_errors = 0;
			update_irq(u);
		}
		return value;
	case REG_MSR:
		value = u->msr;
		if (value & MSR_DELTAS) {
			u->msr &= (uint8_t)~MSR_DELTAS;
			update_irq(u);
		}
		return value;
	default: return u->scr;
	}
}

static void serial_write(void *opaque, uint16_t port, unsigned size, uint32_t value32)
{
	struct serial16550 *u = opaque;
	uint8_t value = (uint8_t)value32;

	switch (port & 7) {
	case REG_DATA:
		if (u->lcr & LCR_DLAB)
			u->divisor = (uint16_t)((u->divisor & 0xFF00) | value);
		else
			write_thr(u, value);
		break;
	case REG_IER:
		if (u->lcr & LCR_DLAB) {
			u->divisor = (uint16_t)((u->divisor & 0x00FF) | value << 8);
			break;
		}
		/* Enabling THRE while the register is empty interrupts at once. */
		if ((value & IER_THRE) && !(u->ier & IER_THRE) && u->tx_count == 0)
			u->thre_pending = true;
		u->ier = value & IER_WRITABLE;
		update_irq(u);
		break;
	case REG_IIR_FCR: write_fcr(u, value); break;
	case REG_LCR: u->lcr = value; break;
	case REG_MCR: {
		bool was_loop = u->mcr & MCR_LOOP;
		u->mcr = value & MCR_WRITABLE;
		update_modem(u);
		if (was_loop && !(u->mcr & MCR_LOOP) && u->chr)
			chardev_accept_input(u->chr);
		break;
	}
	case REG_SCR: u->scr = value; break;
	default: break; /* LSR and MSR are read-only */
	}
}

static const struct io_ops serial_ops = {
	.read = serial_read,
	.write = serial_write,
	.write_block = serial_write_block,
};

/* ---- life ---- */

static void power_on(struct serial16550 *u)
{
	u->divisor = 12; /* 9600 bits/s; the chip leaves it undefined */
	u->trigger = 1;
	u->msr = modem_inputs(u);
}

static void serial_reset(void *opaque)
{
	struct serial16550 *u = opaque;

	power_on(u);
	irq_lower(&u->irq);
	if (u->chr)
		chardev_accept_input(u->chr);
}

static int serial_post_load(void *opaque, unsigned version, struct error *err)
{
	struct serial16550 *u = opaque;
	uint8_t room = u->fifo_enabled ? FIFO_SIZE : 1;

	if (u->rx_count > room)
		u->rx_count = room;
	if (u->tx_count > room)
		u->tx_count = room;
	if (u->trigger == 0 || u->trigger > FIFO_SIZE)
		u->trigger = 1;
	u->ier &= IER_WRITABLE;
	u->mcr &= MCR_WRITABLE;
	u->lsr_errors &= LSR_ERRORS;
	if (u->tx_count && !u->retry.pending) /* nothing else would ever send it */
		timer_set(&u->retry, clock_now(u->clock) + RETRY_NS);
	update_irq(u);
	if (u->chr)
		chardev_accept_input(u->chr);
	return 0;
}

static const struct state_desc serial_desc = {
	.name = "serial",
	.version = 1,
	.fields = serial_fields,
	.reset = serial_reset,
	.post_load = serial_post_load,
};

struct serial16550 *serial16550_new(const struct device_env *env, int instance, uint16_t iobase,
				    struct irq_line irq, struct chardev *chr)
{
	struct serial16550 *u = xcalloc(1, sizeof(*u));
	struct chardev_frontend fe = {
		.can_receive = can_receive,
		.receive = receive,
		.send_break = receive_break,
		.opaque = u,
	};

	u->irq = irq;
	u->chr = chr;
	u->clock = env->clock;
	u->io = env->io;
	u->states = env->states;
	snprintf(u->name, sizeof(u->name), "serial%d", instance);
	timer_init(&u->timeout, env->clock, timed_out, u);
	timer_init(&u->retry, env->clock, retry_due, u);
	power_on(u);
	u->range = iobus_add(env->io, u->name, iobase, PORTS, &serial_ops, u);
	state_register(env->states, &serial_desc, instance, u);
	if (chr)
		chardev_attach(chr, &fe);
	return u;
}

void serial16550_free(struct serial16550 *u)
{
	if (!u)
		return;
	if (u->chr)
		chardev_attach(u->chr, NULL);
	timer_cancel(&u->timeout);
	timer_cancel(&u->retry);
	iobus_remove(u->io, u->range);
	state_unregister(u->states, u);
	free(u);
}
