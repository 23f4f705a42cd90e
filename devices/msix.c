/* SPDX-License-Identifier: MIT */
/*
 * MSI-X: a table of messages in a memory BAR, one for each vector.
 *
 *   BAR offset  0x000 + 16 n  message address (64 bits), data, vector control (bit 0: masked)
 *               0x800         pending bits, 64 vectors a qword, read-only
 *
 *   capability  2  message control: enable(15) function mask(14) table size - 1(10:0)
 *               4  table offset and BAR number(2:0)
 *               8  pending bits' offset and BAR number(2:0)
 *
 * A vector that fires while it or the function is masked becomes pending, and is sent when both are
 * unmasked. A message is a memory write by the function, so nothing leaves it without the
 * bus-master bit.
 *
 * Where the interrupt controller can have an eventfd send a message (core/irq.h), each vector that
 * is used gets one.
 *
 * Document: PCI Local Bus Specification 3.0, 6.8.2 and 6.8.3. Left out: accesses narrower than a
 * dword (undefined there; writes are ignored).
 */
#include "devices/msix.h"
#include "core/state.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
	CAPABILITY_ID = 0x11,
	CAPABILITY_SIZE = 12,
	CAP_CONTROL = 2,
	CAP_TABLE = 4,
	CAP_PENDING = 8,
	CONTROL_ENABLE = 1 << 15,
	CONTROL_FUNCTION_MASK = 1 << 14,

	ENTRY_SIZE = 16,
	ENTRY_ADDRESS_LOW = 0,
	ENTRY_ADDRESS_HIGH = 4,
	ENTRY_DATA = 8,
	ENTRY_CONTROL = 12,
	ENTRY_MASKED = 1,
	ADDRESS_RESERVED = 3, /* a message is one aligned dword */

	PENDING_OFFSET = ENTRY_SIZE * MSIX_VECTORS_MAX,
	BAR_SIZE = 2 * PENDING_OFFSET,
};

static const struct state_field entry_fields[] = {
	STATE_UINT(msix_entry, address),
	STATE_UINT(msix_entry, data),
	STATE_UINT(msix_entry, control),
	STATE_END,
};

static const struct state_field msix_fields[] = {
	STATE_STRUCTS(msix, entry, entry_fields),
	STATE_UINTS(msix, pending),
	STATE_END,
};

static uint16_t control(const struct msix *m)
{
	return load_le16(m->dev->config + m->capability + CAP_CONTROL);
}

bool msix_enabled(const struct msix *m)
{
	return m->dev && (control(m) & CONTROL_ENABLE);
}

static bool is_pending(const struct msix *m, unsigned vector)
{
	return m->pending[vector / 64] >> vector % 64 & 1;
}

/* Sends the vector's message through its eventfd; false if there is no such way. */
static bool signal_route(struct msix *m, unsigned vector)
{
	const struct msi_controller *c = m->controller;
	const struct msix_entry *e = &m->entry[vector];
	struct msix_route *r = &m->route[vector];

	if (m->no_routes || !c || !c->route)
		return false;
	if (!r->made || r->address != e->address || r->data != e->data) {
		if (!r->fd && (r->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) <= 0)
			r->fd = 0;
		r->made = r->fd && c->route(c->opaque, r->fd, e->address, e->data) == 0;
		m->no_routes = !r->made;
		r->address = e->address;
		r->data = e->data;
	}
	return r->made && eventfd_write(r->fd, 1) == 0;
}

void msix_notify(struct msix *m, unsigned vector)
{
	if (!msix_enabled(m) || vector >= m->vectors)
		return;
	const struct msix_entry *e = &m->entry[vector];
	uint64_t bit = UINT64_C(1) << vector % 64;
	if ((control(m) & CONTROL_FUNCTION_MASK) || (e->control & ENTRY_MASKED)) {
		m->pending[vector / 64] |= bit;
		return;
	}
	m->pending[vector / 64] &= ~bit;
	if (!(load_le16(m->dev->config + PCI_COMMAND) & PCI_COMMAND_MASTER))
		return;
	trace(TRACE_IRQ, "%s: MSI-X vector %u: %llx <- %x", m->dev->name, vector,
	      (unsigned long long)e->address, e->data);
	if (!signal_route(m, vector))
		msi_send(m->controller, e->address, e->data);
}

/* Sends what became pending while it was masked. */
static void send_pending(struct msix *m)
{
	for (unsigned v = 0; v < m->vectors; v++)
		if (is_pending(m, v))
			msix_notify(m, v);
}

void msix_config_changed(struct msix *m, unsigned first, unsigned count)
{
	if (m->dev && ranges_overlap(first, count, m->capability + CAP_CONTROL, 2))
		send_pending(m);
}

static uint64_t bar_read(void *opaque, uint64_t offset, unsigned size)
{
	const struct msix *m = opaque;

	if (offset >= PENDING_OFFSET) {
		unsigned n = (unsigned)(offset - PENDING_OFFSET) / 4;
		return n < MSIX_VECTORS_MAX / 32 ? (uint32_t)(m->pending[n / 2] >> n % 2 * 32) : 0;
	}
	if (offset / ENTRY_SIZE >= m->vectors)
		return 0;
	const struct msix_entry *e = &m->entry[offset / ENTRY_SIZE];
	switch (offset % ENTRY_SIZE) {
	case ENTRY_ADDRESS_LOW: return (uint32_t)e->address;
	case ENTRY_ADDRESS_HIGH: return e->address >> 32;
	case ENTRY_DATA: return e->data;
	case ENTRY_CONTROL: return e->control;
	default: return 0;
	}
}

static void bar_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct msix *m = opaque;
	unsigned vector = (unsigned)(offset / ENTRY_SIZE);

	if (vector >= m->vectors || size != 4)
		return;
	struct msix_entry *e = &m->entry[vector];
	switch (offset % ENTRY_SIZE) {
	case ENTRY_ADDRESS_LOW:
		e->address = (e->address & ~(uint64_t)UINT32_MAX) |
			     ((uint32_t)value & ~(uint32_t)ADDRESS_RESERVED);
		break;
	case ENTRY_ADDRESS_HIGH: e->address = (e->address & UINT32_MAX) | value << 32; break;
	case ENTRY_DATA: e->data = (uint32_t)value; break;
	case ENTRY_CONTROL:
		e->control = value & ENTRY_MASKED;
		if (is_pending(m, vector))
			msix_notify(m, vector);
		break;
	default: break;
	}
}

static const struct mmio_ops bar_ops = {
	.read = bar_read,
	.write = bar_write,
	.min_size = 4,
	.max_size = 4,
};

static void msix_reset(void *opaque)
{
	struct msix *m = opaque;

	for (unsigned v = 0; v < m->vectors; v++)
		m->entry[v].control = ENTRY_MASKED;
}

static int msix_post_load(void *opaque, unsigned version, struct error *err)
{
	struct msix *m = opaque;

	for (unsigned v = 0; v < MSIX_VECTORS_MAX; v++) {
		m->entry[v].address &= ~(uint64_t)ADDRESS_RESERVED;
		m->entry[v].control &= ENTRY_MASKED;
	}
	return 0;
}

static const struct state_desc msix_desc = {
	.name = "msix",
	.version = 1,
	.fields = msix_fields,
	.reset = msix_reset,
	.post_load = msix_post_load,
};

int msix_init(struct msix *m, const struct device_env *env, struct pci_device *dev,
	      unsigned vectors, int bar, struct error *err)
{
	*m = (struct msix){.controller = env->msi, .states = env->states};
	if (vectors < 1 || vectors > MSIX_VECTORS_MAX)
		return error_set(err, EINVAL, "vectors must be 0 to %d", MSIX_VECTORS_MAX);
	int at = pci_add_capability(dev, CAPABILITY_ID, CAPABILITY_SIZE, err);
	if (at < 0)
		return at;
	m->capability = (unsigned)at;
	m->vectors = vectors;
	m->dev = dev;
	pci_config_define(dev, m->capability + CAP_CONTROL, 2, vectors - 1,
			  CONTROL_ENABLE | CONTROL_FUNCTION_MASK);
	pci_config_define(dev, m->capability + CAP_TABLE, 4, (unsigned)bar, 0);
	pci_config_define(dev, m->capability + CAP_PENDING, 4, PENDING_OFFSET | (unsigned)bar, 0);
	pci_bar_mem(dev, bar, mem_region_new_mmio(env->mem, "msix", BAR_SIZE, &bar_ops, m), false);
	state_register(env->states, &msix_desc, dev->devfn, m);
	msix_reset(m);
	return 0;
}

void msix_fini(struct msix *m)
{
	if (!m->dev)
		return;
	state_unregister(m->states, m);
	for (unsigned v = 0; v < m->vectors; v++) {
		struct msix_route *r = &m->route[v];
		if (!r->fd)
			continue;
		m->controller->unroute(m->controller->opaque, r->fd);
		close(r->fd);
		*r = (struct msix_route){0};
	}
	m->dev = NULL;
}
