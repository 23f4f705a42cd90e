/* SPDX-License-Identifier: MIT */
/*
 * fw_cfg: the firmware configuration device.
 *
 * The firmware writes the number of an item to the selector port and then reads the item's bytes
 * one after another from the data port, or has the device copy them by DMA. Reading behind an
 * item's end, or an item that does not exist, gives zeros. Item 0x19 is a directory that maps names
 * to the numbers from 0x20 on; its entries are sorted by name.
 *
 *   port          size  access  what
 *   0x510         2     W       selector: bits 0..13 item, 14 write (obsolete), 15 x86's own items
 *   0x511         1     R       next byte of the item
 *   0x514, 0x518  4     W       DMA address, big-endian, high half then low half; the low half
 *                               starts the transfer. Reading gives the signature "QEMU CFG".
 *
 * The DMA descriptor lies in guest memory, big-endian: control (4 bytes), length (4), address (8).
 * The device clears the control word when done, or leaves only the error bit. The guest must wait
 * for that: what is longer than DMA_AT_ONCE goes on from the event loop, so that nobody can occupy
 * the machine with one access.
 *
 * Document: QEMU, docs/specs/fw_cfg. Writing through the data port, which that document calls
 * obsolete, is left out: such bytes are dropped.
 */
#include "devices/fw_cfg.h"
#include "core/iobus.h"
#include "core/memory.h"
#include "core/state.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "lib/text.h"
#include <errno.h>
#include <stdlib.h>

enum {
	PORT_SELECTOR = 0x510,
	PORT_DATA = 0x511,
	PORT_DMA_HIGH = 0x514,
	PORT_DMA_LOW = 0x518,
};

/* The selector's bits. */
enum {
	KEY_ENTRY = 0x3fff,
	KEY_ARCH_LOCAL = 0x8000,
};

/* Item FW_CFG_ID. */
enum {
	ID_TRADITIONAL = 1 << 0,
	ID_DMA = 1 << 1,
};

/* The DMA control word. */
enum {
	DMA_ERROR = 1 << 0,
	DMA_READ = 1 << 1,
	DMA_SKIP = 1 << 2,
	DMA_SELECT = 1 << 3,
	DMA_WRITE = 1 << 4,
	DMA_KEY_SHIFT = 16,
};

#define DMA_SIGNATURE UINT64_C(0x51454d5520434647) /* "QEMU CFG" */

enum {
	FILE_SLOTS = 128,
	GLOBAL_ITEMS = FW_CFG_FILE_FIRST + FILE_SLOTS,
	ARCH_ITEMS = 16,
	DIR_HEADER = 4,
	DIR_ENTRY = 64,
	DIR_ENTRY_NAME = 8,
	DMA_AT_ONCE = 32 << 20,
};

struct item {
	uint8_t *data;
	uint32_t len;
	bool writable;
	void (*written)(void *opaque);
	void *opaque;
};

struct fw_cfg {
	/* Guest-visible. */
	uint16_t selected;
	uint32_t offset; /* of the next byte; never above UINT32_MAX: it saturates */
	uint32_t dma_high;
	/* A read by DMA that goes on in the loop: `dma_left` bytes to `dma_to`; 0: none. */
	uint64_t dma_descriptor, dma_to;
	uint32_t dma_left;

	struct item global[GLOBAL_ITEMS];
	struct item arch[ARCH_ITEMS];
	char file_name[FILE_SLOTS][FW_CFG_FILE_NAME_MAX + 1]; /* of item FW_CFG_FILE_FIRST + i */
	unsigned files;

	struct device_env env;
	struct io_range *ports, *dma_ports;
	struct loop_call dma_call;
};

static struct item *find_item(const struct fw_cfg *fw, uint16_t key)
{
	struct fw_cfg *f = (struct fw_cfg *)fw;
	unsigned entry = key & KEY_ENTRY;

	if (key & KEY_ARCH_LOCAL)
		return entry < ARCH_ITEMS ? &f->arch[entry] : NULL;
	return entry < GLOBAL_ITEMS ? &f->global[entry] : NULL;
}

static void select_item(struct fw_cfg *fw, uint16_t key)
{
	fw->selected = key;
	fw->offset = 0;
	trace(TRACE_FW_CFG, "select %#06x: %u bytes", key,
	      find_item(fw, key) ? find_item(fw, key)->len : 0);
}

/* Copies the next `len` bytes of the selected item and moves on; zeros behind its end. */
static void read_item(struct fw_cfg *fw, uint8_t *buf, size_t len)
{
	const struct item *it = find_item(fw, fw->selected);
	size_t have = it && fw->offset < it->len ? it->len - fw->offset : 0;

	if (have > len)
		have = len;
	if (have)
		memcpy(buf, it->data + fw->offset, have);
	memset(buf + have, 0, len - have);
	fw->offset = len > UINT32_MAX - fw->offset ? UINT32_MAX : fw->offset + (uint32_t)len;
}

static uint32_t port_read(void *opaque, uint16_t port, unsigned size)
{
	struct fw_cfg *fw = opaque;
	uint8_t byte;

	if (port != PORT_DATA)
		return UINT32_MAX;
	read_item(fw, &byte, 1);
	return UINT32_C(0xffffff00) | byte;
}

static void port_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
	if (port == PORT_SELECTOR && size == 2)
		select_item(opaque, (uint16_t)value);
}

static size_t port_read_block(void *opaque, uint16_t port, unsigned size, void *buf, size_t count)
{
	if (port == PORT_DATA && size == 1) {
		read_item(opaque, buf, count);
		return count;
	}
	store_le(buf, port_read(opaque, port, size), size);
	return 1;
}

/* DMA from the item into guest memory. */
static bool dma_read(struct fw_cfg *fw, uint64_t addr, uint32_t len)
{
	static const uint8_t zeros[64 * 1024];
	const struct item *it = find_item(fw, fw->selected);

	while (len) {
		uint32_t have = it && fw->offset < it->len ? it->len - fw->offset : 0;
		const uint8_t *src = have ? it->data + fw->offset : zeros;
		uint32_t n = have ? have : sizeof(zeros);

		if (n > len)
			n = len;
		if (!mem_write(fw->env.mem, addr, src, n))
			return false;
		fw->offset = n > UINT32_MAX - fw->offset ? UINT32_MAX : fw->offset + n;
		addr += n;
		len -= n;
	}
	return true;
}

/* DMA from guest memory into an item that allows it; all of it must fit. */
static bool dma_write(struct fw_cfg *fw, uint64_t addr, uint32_t len)
{
	struct item *it = find_item(fw, fw->selected);

	if (!it || !it->writable || !range_in(fw->offset, len, it->len))
		return false;
	if (!mem_read(fw->env.mem, addr, it->data + fw->offset, len))
		return false;
	fw->offset += len;
	if (it->written)
		it->written(it->opaque);
	return true;
}

/* Tells the guest that the descriptor is dealt with. */
static void dma_end(struct fw_cfg *fw, uint64_t descriptor, bool ok)
{
	uint8_t done[4];

	store_be32(done, ok ? 0 : DMA_ERROR);
	mem_write(fw->env.mem, descriptor, done, sizeof(done));
}

/* The next stretch of a read. */
static void dma_continue(void *opaque)
{
	struct fw_cfg *fw = opaque;
	uint32_t n = fw->env.loop && fw->dma_left > DMA_AT_ONCE ? DMA_AT_ONCE : fw->dma_left;

	bool ok = dma_read(fw, fw->dma_to, n);
	fw->dma_to += n;
	fw->dma_left = ok ? fw->dma_left - n : 0;
	if (fw->dma_left)
		loop_call_schedule(fw->env.loop, &fw->dma_call);
	else
		dma_end(fw, fw->dma_descriptor, ok);
}

/* Gives up a read that still goes on. */
static void dma_cancel(struct fw_cfg *fw)
{
	if (fw->env.loop)
		loop_call_cancel(fw->env.loop, &fw->dma_call);
	if (fw->dma_left)
		dma_end(fw, fw->dma_descriptor, false);
	fw->dma_left = 0;
}

static void dma_run(struct fw_cfg *fw, uint64_t descriptor)
{
	uint8_t d[16];
	bool ok = true;

	dma_cancel(fw);

	if (!mem_read(fw->env.mem, descriptor, d, sizeof(d))) {
		trace(TRACE_FW_CFG, "dma descriptor at %#llx is not in memory",
		      (unsigned long long)descriptor);
		return;
	}
	uint32_t control = load_be32(d), len = load_be32(d + 4);
	uint64_t addr = load_be64(d + 8);

	if (control & DMA_SELECT)
		select_item(fw, (uint16_t)(control >> DMA_KEY_SHIFT));
	trace(TRACE_FW_CFG, "dma control %#x, %u bytes at %#llx", control, len,
	      (unsigned long long)addr);
	if (control & DMA_READ) {
		fw->dma_descriptor = descriptor;
		fw->dma_to = addr;
		fw->dma_left = len;
		dma_continue(fw);
		return;
	}
	if (control & DMA_WRITE)
		ok = dma_write(fw, addr, len);
	else if (control & DMA_SKIP)
		fw->offset = len > UINT32_MAX - fw->offset ? UINT32_MAX : fw->offset + len;
	dma_end(fw, descriptor, ok);
}

static uint32_t dma_port_read(void *opaque, uint16_t port, unsigned size)
{
	uint8_t sig[8];
	unsigned at = port - PORT_DMA_HIGH;

	store_be64(sig, DMA_SIGNATURE);
	return range_in(at, size, sizeof(sig)) ? (uint32_t)load_le(sig + at, size) : UINT32_MAX;
}

static void dma_port_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
	struct fw_cfg *fw = opaque;

	if (size != 4)
		return;
	if (port == PORT_DMA_HIGH) {
		fw->dma_high = __builtin_bswap32(value);
	} else if (port == PORT_DMA_LOW) {
		uint64_t descriptor = (uint64_t)fw->dma_high << 32 | __builtin_bswap32(value);
		fw->dma_high = 0;
		dma_run(fw, descriptor);
	}
}

static const struct io_ops port_ops = {
	.read = port_read,
	.write = port_write,
	.read_block = port_read_block,
	.sizes = 1 | 2,
};

static const struct io_ops dma_ops = {
	.read = dma_port_read,
	.write = dma_port_write,
	.sizes = 1 | 2 | 4,
};

static const struct state_field fields[] = {
	STATE_UINT(fw_cfg, selected),
	STATE_UINT(fw_cfg, offset),
	STATE_UINT(fw_cfg, dma_high),
	STATE_UINT(fw_cfg, dma_descriptor),
	STATE_UINT(fw_cfg, dma_to),
	STATE_UINT(fw_cfg, dma_left),
	STATE_END,
};

static void fw_cfg_reset(void *opaque)
{
	struct fw_cfg *fw = opaque;

	/* The registry has forgotten the transfer, and its descriptor means nothing any more. */
	if (fw->env.loop)
		loop_call_cancel(fw->env.loop, &fw->dma_call);
}

static int fw_cfg_post_load(void *opaque, unsigned version, struct error *err)
{
	struct fw_cfg *fw = opaque;

	if (fw->dma_left && fw->env.loop)
		loop_call_schedule(fw->env.loop, &fw->dma_call);
	return 0;
}

static const struct state_desc desc = {
	.name = "fw_cfg",
	.version = 1,
	.fields = fields,
	.reset = fw_cfg_reset,
	.post_load = fw_cfg_post_load,
};

/* Takes over `data`. Items that the 32-bit lengths cannot describe do not exist. */
static void set_item(struct item *it, void *data, size_t len)
{
	free(it->data);
	*it = (struct item){.data = data, .len = len > UINT32_MAX ? 0 : (uint32_t)len};
}

static void *copy_of(const void *data, size_t len)
{
	void *copy = xmalloc(len ? len : 1);

	if (len)
		memcpy(copy, data, len);
	return copy;
}

void fw_cfg_give_bytes(struct fw_cfg *fw, uint16_t key, void *data, size_t len)
{
	struct item *it = find_item(fw, key);

	if (it)
		set_item(it, data, len);
	else
		free(data);
}

void fw_cfg_add_bytes(struct fw_cfg *fw, uint16_t key, const void *data, size_t len)
{
	fw_cfg_give_bytes(fw, key, copy_of(data, len), len);
}

void fw_cfg_add_u16(struct fw_cfg *fw, uint16_t key, uint16_t value)
{
	fw_cfg_add_bytes(fw, key, &value, sizeof(value));
}

void fw_cfg_add_u32(struct fw_cfg *fw, uint16_t key, uint32_t value)
{
	fw_cfg_add_bytes(fw, key, &value, sizeof(value));
}

void fw_cfg_add_u64(struct fw_cfg *fw, uint16_t key, uint64_t value)
{
	fw_cfg_add_bytes(fw, key, &value, sizeof(value));
}

/* Index of the name, or -1 - (where it belongs). */
static int find_file(const struct fw_cfg *fw, const char *name)
{
	for (unsigned i = 0; i < fw->files; i++) {
		int order = strcmp(fw->file_name[i], name);
		if (order == 0)
			return (int)i;
		if (order > 0)
			return -1 - (int)i;
	}
	return -1 - (int)fw->files;
}

static void rebuild_directory(struct fw_cfg *fw)
{
	size_t len = DIR_HEADER + (size_t)fw->files * DIR_ENTRY;
	uint8_t *dir = xcalloc(1, len);

	store_be32(dir, fw->files);
	for (unsigned i = 0; i < fw->files; i++) {
		uint8_t *e = dir + DIR_HEADER + (size_t)i * DIR_ENTRY;
		store_be32(e, fw->global[FW_CFG_FILE_FIRST + i].len);
		store_be16(e + 4, (uint16_t)(FW_CFG_FILE_FIRST + i));
		strcpy((char *)e + DIR_ENTRY_NAME, fw->file_name[i]);
	}
	set_item(&fw->global[FW_CFG_FILE_DIR], dir, len);
}

int fw_cfg_add_writable_file(struct fw_cfg *fw, const char *name, const void *data, size_t len,
			     void (*written)(void *opaque), void *opaque, struct error *err)
{
	int rc = fw_cfg_add_file(fw, name, data, len, err);

	if (rc == 0) {
		struct item *it = &fw->global[FW_CFG_FILE_FIRST + find_file(fw, name)];
		it->writable = true;
		it->written = written;
		it->opaque = opaque;
	}
	return rc;
}

int fw_cfg_add_file(struct fw_cfg *fw, const char *name, const void *data, size_t len,
		    struct error *err)
{
	struct item *items = &fw->global[FW_CFG_FILE_FIRST];
	size_t name_len = strlen(name);
	int at = find_file(fw, name);

	if (name_len == 0 || name_len > FW_CFG_FILE_NAME_MAX)
		return error_set(err, EINVAL, "fw_cfg file name '%s' must have 1 to %d characters",
				 name, FW_CFG_FILE_NAME_MAX);
	if (len > UINT32_MAX)
		return error_set(err, EFBIG, "fw_cfg file '%s' is larger than 4 GiB", name);
	if (at < 0) {
		if (fw->files == FILE_SLOTS)
			return error_set(err, ENOSPC,
					 "no room for fw_cfg file '%s'; there can be %d", name,
					 FILE_SLOTS);
		at = -1 - at;
		unsigned behind = fw->files - (unsigned)at;
		memmove(&fw->file_name[at + 1], &fw->file_name[at],
			behind * sizeof(fw->file_name[0]));
		memmove(&items[at + 1], &items[at], behind * sizeof(items[0]));
		memcpy(fw->file_name[at], name, name_len + 1);
		items[at] = (struct item){0};
		fw->files++;
	}
	set_item(&items[at], copy_of(data, len), len);
	rebuild_directory(fw);
	return 0;
}

bool fw_cfg_remove_file(struct fw_cfg *fw, const char *name)
{
	struct item *items = &fw->global[FW_CFG_FILE_FIRST];
	int at = find_file(fw, name);

	if (at < 0)
		return false;
	free(items[at].data);
	fw->files--;
	unsigned behind = fw->files - (unsigned)at;
	memmove(&fw->file_name[at], &fw->file_name[at + 1], behind * sizeof(fw->file_name[0]));
	memmove(&items[at], &items[at + 1], behind * sizeof(items[0]));
	items[fw->files] = (struct item){0};
	rebuild_directory(fw);
	return true;
}

const void *fw_cfg_item(const struct fw_cfg *fw, uint16_t key, size_t *len)
{
	const struct item *it = find_item(fw, key);

	if (!it || !it->data)
		return NULL;
	*len = it->len;
	return it->data;
}

const void *fw_cfg_file(const struct fw_cfg *fw, const char *name, size_t *len)
{
	int at = find_file(fw, name);

	return at < 0 ? NULL : fw_cfg_item(fw, (uint16_t)(FW_CFG_FILE_FIRST + at), len);
}

struct fw_cfg *fw_cfg_new(const struct device_env *env)
{
	struct fw_cfg *fw = xcalloc(1, sizeof(*fw));

	fw->env = *env;
	loop_call_init(&fw->dma_call, dma_continue, fw);
	fw_cfg_add_bytes(fw, FW_CFG_SIGNATURE, "QEMU", 4);
	fw_cfg_add_u32(fw, FW_CFG_ID, ID_TRADITIONAL | ID_DMA);
	rebuild_directory(fw);
	fw->ports = iobus_add(env->io, "fw_cfg", PORT_SELECTOR, 2, &port_ops, fw);
	fw->dma_ports = iobus_add(env->io, "fw_cfg-dma", PORT_DMA_HIGH, 8, &dma_ops, fw);
	state_register(env->states, &desc, 0, fw);
	return fw;
}

void fw_cfg_free(struct fw_cfg *fw)
{
	if (!fw)
		return;
	if (fw->env.loop)
		loop_call_cancel(fw->env.loop, &fw->dma_call);
	state_unregister(fw->env.states, fw);
	iobus_remove(fw->env.io, fw->ports);
	iobus_remove(fw->env.io, fw->dma_ports);
	for (unsigned i = 0; i < GLOBAL_ITEMS; i++)
		free(fw->global[i].data);
	for (unsigned i = 0; i < ARCH_ITEMS; i++)
		free(fw->arch[i].data);
	free(fw);
}
