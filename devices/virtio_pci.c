/* SPDX-License-Identifier: MIT */
/*
 * The virtio transport over PCI (virtio 1.2, 4.1) and what all virtio devices share: status,
 * features, reset, interrupts.
 *
 *   BAR 0  I/O     legacy interface (4.1.4.10): 0 device features, 4 driver features, 8 queue page,
 *                  12 queue size, 14 queue select, 16 notify, 18 status, 19 ISR; with MSI-X enabled
 *                  20 configuration vector, 22 queue vector; device configuration behind them
 *   BAR 1  memory  MSI-X table
 *   BAR 4  memory  modern interface: 0x0000 common configuration, 0x1000 ISR, 0x2000 device
 *                  configuration, 0x3000 notification, 4 bytes a queue
 *   capabilities   one a modern structure (4.1.4), and one to reach BARs through the configuration
 *                  space (4.1.4.9)
 *
 * A card has both interfaces (transitional) or one of them. PCI identity: 1AF4:1000h.. with
 * subsystem = device type for cards with the legacy interface, 1AF4:1040h + type revision 1
 * without.
 *
 * Interrupts are MSI-X messages when the driver enabled them, else INTx with the ISR byte. While
 * the bus-master bit is clear no queue is served: the card could not reach memory.
 *
 * A notification only schedules the queue: it is served in the event loop's thread (virtqueue.c),
 * so the vCPU goes on at once. Where the engine has doorbells, the notification registers are such
 * (virtio_notify.c).
 *
 * Left out: 64-bit BARs, shared memory, notification data, administration queues.
 */
#include "core/iobus.h"
#include "core/memory.h"
#include "core/state.h"
#include "devices/virtio.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/text.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum {
	VENDOR = 0x1AF4,
	MODERN_DEVICE = 0x1040,
	MODERN_SUBSYSTEM = 0x1100,
	BAR_LEGACY = 0,
	BAR_MSIX = 1,
	BAR_MODERN = 4,
};

/* 4.1.4.10; the device's configuration follows, 4 bytes later with MSI-X enabled. */
enum legacy_reg {
	LEGACY_DEVICE_FEATURES = 0,
	LEGACY_DRIVER_FEATURES = 4,
	LEGACY_QUEUE_PAGE = 8,
	LEGACY_QUEUE_SIZE = 12,
	LEGACY_QUEUE_SELECT = 14,
	LEGACY_NOTIFY = 16,
	LEGACY_STATUS = 18,
	LEGACY_ISR = 19,
	LEGACY_CONFIG_VECTOR = 20,
	LEGACY_QUEUE_VECTOR = 22,
	LEGACY_CONFIG = 20,
	LEGACY_CONFIG_MSIX = 24,
	LEGACY_PAGE_SHIFT = 12,
};

/* 4.1.4.3. */
enum common_reg {
	COMMON_DEVICE_SELECT = 0,
	COMMON_DEVICE_FEATURE = 4,
	COMMON_DRIVER_SELECT = 8,
	COMMON_DRIVER_FEATURE = 12,
	COMMON_CONFIG_VECTOR = 16,
	COMMON_QUEUES = 18,
	COMMON_STATUS = 20,
	COMMON_GENERATION = 21,
	COMMON_QUEUE_SELECT = 22,
	COMMON_QUEUE_SIZE = 24,
	COMMON_QUEUE_VECTOR = 26,
	COMMON_QUEUE_ENABLE = 28,
	COMMON_QUEUE_NOTIFY_OFF = 30,
	COMMON_QUEUE_DESC = 32,
	COMMON_QUEUE_DRIVER = 40,
	COMMON_QUEUE_DEVICE = 48,
	COMMON_QUEUE_NOTIFY_DATA = 56,
	COMMON_QUEUE_RESET = 58,
	COMMON_SIZE = 64,
};

/* Where the structures are in BAR 4. */
enum modern_region {
	REGION_COMMON = 0x0000,
	REGION_ISR = 0x1000,
	REGION_DEVICE = 0x2000,
	REGION_NOTIFY = 0x3000,
	REGION_SIZE = 0x1000,
	MODERN_SIZE = 0x4000,
	NOTIFY_MULTIPLIER = 4,
};

/* 4.1.4: struct virtio_pci_cap. */
enum {
	CAP_VENDOR = 0x09,
	CAP_LENGTH = 2,
	CAP_TYPE = 3,
	CAP_BAR = 4,
	CAP_OFFSET = 8,
	CAP_REGION_LENGTH = 12,
	CAP_SIZE = 16,
	CAP_NOTIFY_MULTIPLIER = 16,
	CAP_CFG_DATA = 16,
	CAP_EXTENDED_SIZE = 20,
	CAP_TYPE_COMMON = 1,
	CAP_TYPE_NOTIFY = 2,
	CAP_TYPE_ISR = 3,
	CAP_TYPE_DEVICE = 4,
	CAP_TYPE_CFG_ACCESS = 5,
};

enum isr_bits { ISR_QUEUE = 1, ISR_CONFIG = 2 };

static struct virtio *from_pci(struct pci_device *dev)
{
	return container_of(dev, struct virtio, pci);
}

/* ---- interrupts ---- */

static void interrupt(struct virtio *v, uint16_t vector, uint8_t isr)
{
	if (msix_enabled(&v->msix)) {
		/* 4.1.5.1.3.1: the ISR says of configuration changes with MSI-X, too. */
		if (isr == ISR_CONFIG)
			v->isr |= isr;
		msix_notify(&v->msix, vector);
		return;
	}
	v->isr |= isr;
	pci_set_irq(&v->pci, true);
}

void virtio_interrupt_queue(struct virtio *v, const struct virtqueue *q)
{
	interrupt(v, q->vector, ISR_QUEUE);
}

void virtio_config_changed(struct virtio *v)
{
	v->generation++;
	if (v->status & VIRTIO_DRIVER_OK)
		interrupt(v, v->config_vector, ISR_CONFIG);
}

static uint8_t read_isr(struct virtio *v)
{
	uint8_t isr = v->isr;

	v->isr = 0;
	pci_set_irq(&v->pci, false);
	return isr;
}

/* ---- life of the device ---- */

bool virtio_running(const struct virtio *v)
{
	return (v->status & VIRTIO_DRIVER_OK) && !v->broken && v->bus_master;
}

void virtio_broken(struct virtio *v, const char *fmt, ...)
{
	char text[160];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	trace(TRACE_VIRTIO, "%s: the driver broke the rules: %s", v->pci.name, text);
	if (v->broken)
		return;
	v->broken = true;
	/* 2.1.2: legacy drivers do not know the bit. */
	if (virtio_has(v, VIRTIO_F_VERSION_1)) {
		v->status |= VIRTIO_NEEDS_RESET;
		virtio_config_changed(v);
	}
}

/* Everything back to power-on but the queues. */
static void reset_registers(struct virtio *v)
{
	if (v->type->reset)
		v->type->reset(v);
	v->status = 0;
	v->features = 0;
	v->device_select = v->driver_select = 0;
	v->queue_select = 0;
	v->config_vector = MSIX_NO_VECTOR;
	v->broken = false;
	read_isr(v);
}

static void reset_by_driver(struct virtio *v)
{
	trace(TRACE_VIRTIO, "%s: reset", v->pci.name);
	reset_registers(v);
	for (unsigned n = 0; n < v->queues; n++)
		virtqueue_reset(&v->queue[n]);
	virtio_update_doorbells(v);
}

static void kick_all(struct virtio *v)
{
	for (unsigned n = 0; n < v->queues; n++)
		virtqueue_kick(&v->queue[n]);
}

static void set_features(struct virtio *v, uint64_t features)
{
	v->features = features & v->offered;
	if (v->type->negotiated)
		v->type->negotiated(v);
}

static void set_status(struct virtio *v, uint8_t value)
{
	uint8_t set = value & (uint8_t)~v->status;

	if (value == 0) {
		reset_by_driver(v);
		return;
	}
	trace(TRACE_VIRTIO, "%s: status %02x, features %llx", v->pci.name, value,
	      (unsigned long long)v->features);
	/* 2.2.2: FEATURES_OK stays only if the device can work with what was chosen. It is a bit of
	 * the modern interface, whose drivers must know version 1. */
	if (set & VIRTIO_FEATURES_OK) {
		if (!virtio_has(v, VIRTIO_F_VERSION_1))
			value &= (uint8_t)~VIRTIO_FEATURES_OK;
		else
			set_features(v, v->features);
	}
	v->status = value | (v->status & VIRTIO_NEEDS_RESET);
	if (!(set & VIRTIO_DRIVER_OK))
		return;
	if (v->type->started)
		v->type->started(v);
	virtio_update_doorbells(v);
	/* What legacy drivers put into the rings before DRIVER_OK. */
	kick_all(v);
}

static const struct state_field virtio_fields[] = {
	STATE_UINT(virtio, status),        STATE_UINT(virtio, isr),
	STATE_UINT(virtio, features),      STATE_UINT(virtio, device_select),
	STATE_UINT(virtio, driver_select), STATE_UINT(virtio, queue_select),
	STATE_UINT(virtio, config_vector), STATE_UINT(virtio, generation),
	STATE_UINT(virtio, broken),        STATE_END,
};

static void state_reset(void *opaque)
{
	reset_registers(opaque);
}

static int state_post_load(void *opaque, unsigned version, struct error *err)
{
	struct virtio *v = opaque;

	if (v->config_vector >= v->msix.vectors)
		v->config_vector = MSIX_NO_VECTOR;
	v->bus_master = load_le16(v->pci.config + PCI_COMMAND) & PCI_COMMAND_MASTER;
	v->features &= v->offered;
	return 0;
}

static const struct state_desc virtio_desc = {
	.name = "virtio",
	.version = 1,
	.fields = virtio_fields,
	.reset = state_reset,
	.post_load = state_post_load,
};

/* ---- registers that both interfaces have ---- */

static struct virtqueue *selected(struct virtio *v)
{
	return v->queue_select < v->queues ? &v->queue[v->queue_select] : NULL;
}

/* 4.1.5.1.2.1: a vector that cannot be had reads back as none. */
static uint16_t checked_vector(const struct virtio *v, uint32_t vector)
{
	return vector < v->msix.vectors ? (uint16_t)vector : MSIX_NO_VECTOR;
}

static void notify(struct virtio *v, uint32_t n)
{
	if (n < v->queues)
		virtqueue_kick(&v->queue[n]);
}

static uint32_t config_read(struct virtio *v, unsigned offset, unsigned size)
{
	uint8_t config[VIRTIO_CONFIG_MAX] = {0};

	if (!range_in(offset, size, v->type->config_size))
		return 0;
	v->type->get_config(v, config);
	return (uint32_t)load_le(config + offset, size);
}

static void config_write(struct virtio *v, unsigned offset, unsigned size, uint32_t value)
{
	uint8_t config[VIRTIO_CONFIG_MAX] = {0};

	if (!range_in(offset, size, v->type->config_size) || !v->type->set_config)
		return;
	v->type->get_config(v, config);
	store_le(config + offset, value, size);
	v->type->set_config(v, config, offset, size);
}

/* ---- legacy interface ---- */

/* The offset in the device's configuration, or -1 if the port is a register of the transport. */
static int legacy_config_offset(const struct virtio *v, unsigned reg)
{
	unsigned start = msix_enabled(&v->msix) ? LEGACY_CONFIG_MSIX : LEGACY_CONFIG;
	return reg >= start ? (int)(reg - start) : -1;
}

static unsigned legacy_bar_size(const struct virtio *v)
{
	unsigned size = 32;
	while (size < LEGACY_CONFIG_MSIX + v->type->config_size)
		size *= 2;
	return size;
}

static uint32_t legacy_read(void *opaque, uint16_t port, unsigned size)
{
	struct virtio *v = opaque;
	unsigned reg = port & (legacy_bar_size(v) - 1);
	int offset = legacy_config_offset(v, reg);
	const struct virtqueue *q = selected(v);

	if (offset >= 0)
		return config_read(v, (unsigned)offset, size);
	switch (reg) {
	case LEGACY_DEVICE_FEATURES: return (uint32_t)v->offered;
	case LEGACY_DRIVER_FEATURES: return (uint32_t)v->features;
	case LEGACY_QUEUE_PAGE: return q ? (uint32_t)(q->desc >> LEGACY_PAGE_SHIFT) : 0;
	case LEGACY_QUEUE_SIZE: return q ? q->max_size : 0;
	case LEGACY_QUEUE_SELECT: return v->queue_select;
	case LEGACY_STATUS: return v->status;
	case LEGACY_ISR: return read_isr(v);
	case LEGACY_CONFIG_VECTOR: return v->config_vector;
	case LEGACY_QUEUE_VECTOR: return q ? q->vector : MSIX_NO_VECTOR;
	default: return 0;
	}
}

static void legacy_queue_page(struct virtio *v, uint32_t page)
{
	struct virtqueue *q = selected(v);

	if (page == 0) {
		/* How legacy drivers take a queue away; only a reset ends what is in flight. */
		reset_by_driver(v);
		return;
	}
	if (!q || q->enabled)
		return;
	virtqueue_set_legacy_address(q, (uint64_t)page << LEGACY_PAGE_SHIFT);
	virtqueue_enable(q);
	virtio_update_doorbells(v);
}

static void legacy_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
	struct virtio *v = opaque;
	unsigned reg = port & (legacy_bar_size(v) - 1);
	int offset = legacy_config_offset(v, reg);
	struct virtqueue *q = selected(v);

	if (offset >= 0) {
		config_write(v, (unsigned)offset, size, value);
		return;
	}
	switch (reg) {
	case LEGACY_DRIVER_FEATURES:
		if (!(v->status & VIRTIO_DRIVER_OK))
			set_features(v, value);
		break;
	case LEGACY_QUEUE_PAGE: legacy_queue_page(v, value); break;
	case LEGACY_QUEUE_SELECT: v->queue_select = (uint16_t)value; break;
	case LEGACY_NOTIFY: notify(v, value); break;
	case LEGACY_STATUS: set_status(v, (uint8_t)value); break;
	case LEGACY_CONFIG_VECTOR: v->config_vector = checked_vector(v, value); break;
	case LEGACY_QUEUE_VECTOR:
		if (q)
			q->vector = checked_vector(v, value);
		break;
	default: break;
	}
}

static const struct io_ops legacy_ops = {
	.read = legacy_read,
	.write = legacy_write,
	.sizes = 1 | 2 | 4,
};

/* ---- modern interface ---- */

static uint32_t feature_word(uint64_t features, uint32_t select)
{
	return select > 1 ? 0 : (uint32_t)(features >> 32 * select);
}

static uint64_t common_read(struct virtio *v, unsigned offset, unsigned size)
{
	uint8_t r[COMMON_SIZE] = {0};
	const struct virtqueue *q = selected(v);

	if (!range_in(offset, size, sizeof(r)))
		return 0;
	store_le32(r + COMMON_DEVICE_SELECT, v->device_select);
	store_le32(r + COMMON_DEVICE_FEATURE, feature_word(v->offered, v->device_select));
	store_le32(r + COMMON_DRIVER_SELECT, v->driver_select);
	store_le32(r + COMMON_DRIVER_FEATURE, feature_word(v->features, v->driver_select));
	store_le16(r + COMMON_CONFIG_VECTOR, v->config_vector);
	store_le16(r + COMMON_QUEUES, (uint16_t)v->queues);
	r[COMMON_STATUS] = v->status;
	r[COMMON_GENERATION] = v->generation;
	store_le16(r + COMMON_QUEUE_SELECT, v->queue_select);
	store_le16(r + COMMON_QUEUE_VECTOR, MSIX_NO_VECTOR);
	if (q) {
		store_le16(r + COMMON_QUEUE_SIZE, q->size);
		store_le16(r + COMMON_QUEUE_VECTOR, q->vector);
		store_le16(r + COMMON_QUEUE_ENABLE, q->enabled);
		store_le16(r + COMMON_QUEUE_NOTIFY_OFF, q->index);
		store_le64(r + COMMON_QUEUE_DESC, q->desc);
		store_le64(r + COMMON_QUEUE_DRIVER, q->avail);
		store_le64(r + COMMON_QUEUE_DEVICE, q->used);
	}
	return load_le(r + offset, size);
}

static void write_driver_features(struct virtio *v, uint32_t value)
{
	unsigned shift = 32 * v->driver_select;

	if (v->driver_select > 1 || (v->status & VIRTIO_FEATURES_OK))
		return;
	v->features = (v->features & ~((uint64_t)UINT32_MAX << shift)) |
		      (((uint64_t)value << shift) & v->offered);
}

/* A dword of one of the three addresses; writes of 8 bytes come as two of 4. */
static void write_address(uint64_t *address, unsigned high, uint32_t value)
{
	if (high)
		*address = (*address & UINT32_MAX) | (uint64_t)value << 32;
	else
		*address = (*address & ~(uint64_t)UINT32_MAX) | value;
}

static void reset_queue(struct virtqueue *q)
{
	struct virtio *v = q->virtio;

	if (!virtio_has(v, VIRTIO_F_RING_RESET) || !v->type->reset_queue)
		return;
	trace(TRACE_VIRTIO, "%s: reset of queue %u", v->pci.name, q->index);
	v->type->reset_queue(q);
	virtqueue_reset(q);
	virtio_update_doorbells(v);
}

static void queue_write(struct virtqueue *q, unsigned offset, uint32_t value)
{
	struct virtio *v = q->virtio;

	switch (offset) {
	case COMMON_QUEUE_VECTOR: q->vector = checked_vector(v, value); return;
	case COMMON_QUEUE_RESET:
		if (value == 1)
			reset_queue(q);
		return;
	default: break;
	}
	if (q->enabled)
		return;
	switch (offset) {
	case COMMON_QUEUE_SIZE:
		if (value <= q->max_size && is_power_of_2(value))
			q->size = (uint16_t)value;
		break;
	case COMMON_QUEUE_ENABLE:
		if (value == 1) {
			virtqueue_enable(q);
			virtio_update_doorbells(v);
		}
		break;
	case COMMON_QUEUE_DESC:
	case COMMON_QUEUE_DESC + 4: write_address(&q->desc, offset & 4, value); break;
	case COMMON_QUEUE_DRIVER:
	case COMMON_QUEUE_DRIVER + 4: write_address(&q->avail, offset & 4, value); break;
	case COMMON_QUEUE_DEVICE:
	case COMMON_QUEUE_DEVICE + 4: write_address(&q->used, offset & 4, value); break;
	default: break;
	}
}

static void common_write(struct virtio *v, unsigned offset, uint32_t value)
{
	struct virtqueue *q = selected(v);

	switch (offset) {
	case COMMON_DEVICE_SELECT: v->device_select = value; break;
	case COMMON_DRIVER_SELECT: v->driver_select = value; break;
	case COMMON_DRIVER_FEATURE: write_driver_features(v, value); break;
	case COMMON_CONFIG_VECTOR: v->config_vector = checked_vector(v, value); break;
	case COMMON_STATUS: set_status(v, (uint8_t)value); break;
	case COMMON_QUEUE_SELECT: v->queue_select = (uint16_t)value; break;
	default:
		if (q)
			queue_write(q, offset, value);
		break;
	}
}

static uint64_t modern_read(void *opaque, uint64_t offset, unsigned size)
{
	struct virtio *v = opaque;
	unsigned within = (unsigned)offset % REGION_SIZE;

	switch (offset - within) {
	case REGION_COMMON: return common_read(v, within, size);
	case REGION_ISR: return within == 0 ? read_isr(v) : 0;
	case REGION_DEVICE: return config_read(v, within, size);
	default: return 0;
	}
}

static void modern_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct virtio *v = opaque;
	unsigned within = (unsigned)offset % REGION_SIZE;

	switch (offset - within) {
	case REGION_COMMON: common_write(v, within, (uint32_t)value); break;
	case REGION_DEVICE: config_write(v, within, size, (uint32_t)value); break;
	case REGION_NOTIFY: notify(v, within / NOTIFY_MULTIPLIER); break;
	default: break;
	}
}

static const struct mmio_ops modern_ops = {
	.read = modern_read, .write = modern_write, .max_size = 4};

bool virtio_notify_register(const struct virtqueue *q, bool modern, struct doorbell *bell)
{
	const struct virtio *v = q->virtio;
	const struct pci_bar *bar = &v->pci.bar[modern ? BAR_MODERN : BAR_LEGACY];

	if (!bar->decoded)
		return false;
	if (modern)
		*bell = (struct doorbell){
			.address = bar->address + REGION_NOTIFY +
				   (uint64_t)q->index * NOTIFY_MULTIPLIER,
		};
	else
		*bell = (struct doorbell){
			.address = bar->address + LEGACY_NOTIFY,
			.port = true,
			.size = 2,
			.match = true,
			.value = q->index,
		};
	return true;
}

/* ---- capabilities ---- */

static int add_capability(struct virtio *v, uint8_t type, uint32_t offset, uint32_t length,
			  unsigned size, struct error *err)
{
	int at = pci_add_capability(&v->pci, CAP_VENDOR, size, err);

	if (at < 0)
		return at;
	unsigned cap = (unsigned)at;
	pci_config_define(&v->pci, cap + CAP_LENGTH, 1, size, 0);
	pci_config_define(&v->pci, cap + CAP_TYPE, 1, type, 0);
	pci_config_define(&v->pci, cap + CAP_BAR, 1, BAR_MODERN, 0);
	pci_config_define(&v->pci, cap + CAP_OFFSET, 4, offset, 0);
	pci_config_define(&v->pci, cap + CAP_REGION_LENGTH, 4, length, 0);
	return at;
}

static int add_modern(struct virtio *v, struct error *err)
{
	static const struct {
		uint8_t type;
		uint32_t offset;
	} simple[] = {
		{CAP_TYPE_COMMON, REGION_COMMON},
		{CAP_TYPE_ISR, REGION_ISR},
		{CAP_TYPE_DEVICE, REGION_DEVICE},
	};
	struct mem_region *bar =
		mem_region_new_mmio(v->env->mem, v->pci.name, MODERN_SIZE, &modern_ops, v);
	int at;

	pci_bar_mem(&v->pci, BAR_MODERN, bar, false);
	for (size_t n = 0; n < ARRAY_SIZE(simple); n++)
		if ((at = add_capability(v, simple[n].type, simple[n].offset, REGION_SIZE, CAP_SIZE,
					 err)) < 0)
			return at;
	at = add_capability(v, CAP_TYPE_NOTIFY, REGION_NOTIFY, REGION_SIZE, CAP_EXTENDED_SIZE, err);
	if (at < 0)
		return at;
	pci_config_define(&v->pci, (unsigned)at + CAP_NOTIFY_MULTIPLIER, 4, NOTIFY_MULTIPLIER, 0);
	at = add_capability(v, CAP_TYPE_CFG_ACCESS, 0, 0, CAP_EXTENDED_SIZE, err);
	if (at < 0)
		return at;
	v->cfg_access = (unsigned)at;
	pci_config_define(&v->pci, v->cfg_access + CAP_BAR, 1, 0, UINT8_MAX);
	pci_config_define(&v->pci, v->cfg_access + CAP_OFFSET, 4, 0, UINT32_MAX);
	pci_config_define(&v->pci, v->cfg_access + CAP_REGION_LENGTH, 4, 0, UINT32_MAX);
	pci_config_define(&v->pci, v->cfg_access + CAP_CFG_DATA, 4, 0, UINT32_MAX);
	return 0;
}

/* 4.1.4.9: what the capability's window names now; 0 if it names nothing sensible. */
static unsigned cfg_window(const struct virtio *v, uint32_t *offset)
{
	const uint8_t *cap = v->pci.config + v->cfg_access;
	uint32_t length = load_le32(cap + CAP_REGION_LENGTH);

	*offset = load_le32(cap + CAP_OFFSET);
	if (cap[CAP_BAR] != BAR_MODERN || (length != 1 && length != 2 && length != 4) ||
	    *offset % length || !range_in(*offset, length, MODERN_SIZE))
		return 0;
	return length;
}

static void config_reading(struct pci_device *dev, unsigned first, unsigned count)
{
	struct virtio *v = from_pci(dev);
	uint32_t offset;
	unsigned length;

	if (v->cfg_access && ranges_overlap(first, count, v->cfg_access + CAP_CFG_DATA, 4) &&
	    (length = cfg_window(v, &offset)))
		store_le32(dev->config + v->cfg_access + CAP_CFG_DATA,
			   (uint32_t)modern_read(v, offset, length));
}

static void config_changed(struct pci_device *dev, unsigned first, unsigned count)
{
	struct virtio *v = from_pci(dev);
	bool had_master = v->bus_master;
	uint32_t offset;
	unsigned length;

	msix_config_changed(&v->msix, first, count);
	/* PCI 3.0, 6.8.3.4: with MSI-X enabled a function must not hold its interrupt pin. */
	if (msix_enabled(&v->msix))
		pci_set_irq(&v->pci, false);
	v->bus_master = load_le16(dev->config + PCI_COMMAND) & PCI_COMMAND_MASTER;
	virtio_update_doorbells(v);
	if (v->bus_master && !had_master)
		kick_all(v);
	/* A guest's write is at most a dword; the whole space is a reset or a load. */
	if (v->cfg_access && count <= 4 &&
	    ranges_overlap(first, count, v->cfg_access + CAP_CFG_DATA, 4) &&
	    (length = cfg_window(v, &offset)))
		modern_write(v, offset, length,
			     load_le(dev->config + v->cfg_access + CAP_CFG_DATA, length));
}

/* ---- construction ---- */

static int build(struct virtio *v, struct pci_bus *bus, const struct virtio_pci_config *config,
		 struct error *err)
{
	const struct virtio_type *type = v->type;
	struct pci_id id = {
		.vendor = VENDOR,
		.device = v->legacy ? type->legacy_device_id : MODERN_DEVICE + type->id,
		.class = type->pci_class,
		.revision = v->legacy ? 0 : 1,
		.subsystem_vendor = VENDOR,
		.subsystem = v->legacy ? type->id : MODERN_SUBSYSTEM,
		.interrupt_pin = 1,
	};
	int r = pci_device_init(bus, &v->pci, config->devfn, config->name, &id, err);

	if (r < 0)
		return r;
	if (v->legacy)
		pci_bar_io(&v->pci, BAR_LEGACY, legacy_bar_size(v), &legacy_ops, v);
	if (config->vectors &&
	    (r = msix_init(&v->msix, v->env, &v->pci, config->vectors, BAR_MSIX, err)) < 0)
		return r;
	if (v->modern && (r = add_modern(v, err)) < 0)
		return r;
	v->pci.config_changed = config_changed;
	v->pci.config_reading = config_reading;
	return 0;
}

int virtio_init(struct virtio *v, const struct device_env *env, struct pci_bus *bus,
		const struct virtio_type *type, uint64_t offered,
		const struct virtio_pci_config *config, struct error *err)
{
	*v = (struct virtio){
		.type = type,
		.env = env,
		.legacy = !config->disable_legacy,
		.modern = !config->disable_modern,
		.config_vector = MSIX_NO_VECTOR,
		.no_doorbells = config->no_doorbells,
	};
	if (!v->legacy && !v->modern)
		return error_set(err, EINVAL,
				 "with disable-legacy=on and disable-modern=on nothing is left of "
				 "the card");
	v->offered = offered;
	if (!config->no_any_layout)
		v->offered |= VIRTIO_F_ANY_LAYOUT;
	if (!config->no_indirect)
		v->offered |= VIRTIO_F_INDIRECT_DESC;
	if (!config->no_event_idx)
		v->offered |= VIRTIO_F_EVENT_IDX;
	if (v->modern)
		v->offered |= VIRTIO_F_VERSION_1;
	if (v->modern && type->reset_queue && !config->no_ring_reset)
		v->offered |= VIRTIO_F_RING_RESET;
	v->queue = xcalloc(VIRTIO_QUEUES_MAX, sizeof(*v->queue));
	int r = build(v, bus, config, err);
	if (r < 0) {
		msix_fini(&v->msix);
		pci_device_fini(&v->pci);
		free(v->queue);
		v->queue = NULL;
		return r;
	}
	state_register(env->states, &virtio_desc, v->pci.devfn, v);
	return 0;
}

struct virtqueue *virtio_add_queue(struct virtio *v, unsigned size)
{
	struct virtqueue *q = &v->queue[v->queues];

	virtqueue_init(q, v, v->queues, size);
	v->queues++;
	return q;
}

void virtio_fini(struct virtio *v)
{
	if (!v->queue)
		return;
	reset_registers(v);
	for (unsigned n = 0; n < v->queues; n++)
		virtqueue_fini(&v->queue[n]);
	state_unregister(v->env->states, v);
	msix_fini(&v->msix);
	pci_device_fini(&v->pci);
	free(v->queue);
	v->queue = NULL;
}
