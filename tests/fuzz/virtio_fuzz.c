/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target: a hostile driver of virtio cards. The input is a list of operations on a machine with
 * two disks, two network cards on a hub, a serial card and a random number generator, and of three more
 * cards whose other side moves as well (virtio_host.c): registers of both interfaces, rings laid out
 * well or badly and moved while requests are in flight, descriptors and tables with any address and
 * length, indices that jump, resets of cards and queues at any time, bus mastering and MSI-X switched at
 * will. Nothing is expected but that the machine stays whole, that every operation ends and that ROM
 * stays what it was.
 */
#include "core/iobus.h"
#include "core/memory.h"
#include "core/state.h"
#include "lib/bytes.h"
#include "lib/text.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/rig.h"
#include "tests/fuzz/virtio_host.h"
#include <stdio.h>
#include <stdlib.h>

/* Each operation is its number and then its operands. */
enum operation {
	OP_START, /* card (u8), features (u32), how (u8): 1 modern, 2 with queue reset */
	OP_PORT,  /* card, offset (u8), size with bit 7: write, value (u32) */
	OP_MMIO,  /* card, offset (u16), size with bit 7: write, value (u32) */
	OP_MSIX,  /* card, offset (u16), value (u32) */
	OP_RAM,   /* address (u16) in units of 16, length (u8): from the input */
	OP_DESC, /* card, queue (u8), index (u8), place (u8), offset (u16), length (u32), flags (u8),
		       next (u8) */
	OP_OFFER,   /* card, queue, head (u8), kick (u8) */
	OP_INDEX,   /* card, queue, available index (u16) */
	OP_REQUEST, /* card, queue, type (u8), sector (u16), length (u16), write (u8) */
	OP_SETTLE,  /* - */
	OP_RESET,   /* card; 15 of 16: only the card */
	OP_CONFIG,  /* card, register (u8), value (u32) */
	OP_TIME,    /* how long (u16) in units of 64 us */
	OP_HOST,    /* see virtio_host.c */
	OP_QUEUE,   /* card, queue, how (u8): 1 reset, 2 enabled; size (u8), three places (u8) */
	OP_TABLE,   /* card, queue, count (u8), flags of the first (u8); for each place (u8), offset
		       (u16), length (u16), how (u8) */
	OP_CONTROL, /* card, queue, class (u8), command (u8), length (u8): from the input */
	OP_FRAME,   /* card, queue, header (12), length (u16), how (u8): 1 IPv6 */
	OP_BURST, /* card, queue, requests (u8), type (u8), sector (u8), sectors of each (u8), how (u8): 1 to
		       write to, 2 in reverse order, 4 no notification */
	OP_VECTORS, /* card, vectors that are masked (u8), function masked (u8) */
	OPERATIONS
};

enum {
	CARDS = 9,
	QUEUES = 8,
	FIRST_SLOT = 0x10,
	HOST_SLOT = 0x16, /* of the cards of virtio_host.c, the last three */
	IO_BASE = 0xC000, /* 256 ports a card */
	RINGS = 0x100000, /* 64 KiB a queue, 512 KiB a card */
	RING_AVAIL = 0x8000,
	RING_USED = 0xA000,
	BUFFERS = 0x600000, /* 64 KiB a queue; behind them what descriptors may name */
	TARGETS = 0x700000,
	TABLES = 0x7C0000,
	RAM_MIB = 8,
	ROM = 0xFFFF0000u,
	ROM_SIZE = 0x10000,
	ADVANCE_UNIT = 64000,
};
#define MODERN(card) (0xE0000000u + (card)*0x100000u)
#define MSIX(card)   (0xE0080000u + (card)*0x100000u)

/* Where guests should not have rings, tables and buffers, and where they may. */
static const uint64_t places[] = {TARGETS,    0,     (RAM_MIB << 20) - 0x100, 0xA0000, 0xF0000,
				  0xE0000000, RINGS, 0xFFFFFFFFFFFFFF00,      ROM};

static struct machine *machine;
static struct virtio_host *host;

static uint64_t a_place(uint8_t which)
{
	return places[which % ARRAY_SIZE(places)];
}

static void config_write(unsigned card, unsigned reg, unsigned size, uint32_t value)
{
	iobus_write(machine->io, 0xCF8, 4, 0x80000000 | (FIRST_SLOT + card) << 11 | (reg & 0xFC));
	iobus_write(machine->io, (uint16_t)(0xCFC + (reg & 3 & ~(size - 1))), size, value);
}

static void mmio(uint64_t at, unsigned size, uint64_t value)
{
	mem_mmio_write(machine->mem, at & ~(uint64_t)(size - 1), size, value);
}

static void port(unsigned card, unsigned offset, unsigned size, uint32_t value)
{
	iobus_write(machine->io, (uint16_t)(IO_BASE + 256 * card + offset), size, value);
}

static void configure(unsigned card)
{
	config_write(card, 0x10, 4, IO_BASE + 256 * card);
	config_write(card, 0x14, 4, MSIX(card));
	config_write(card, 0x20, 4, MODERN(card));
	config_write(card, 0x04, 2, 7);
}

static uint32_t ring(unsigned card, unsigned queue)
{
	return RINGS + card * 0x80000u + queue * 0x10000u;
}

/* Where the available ring is depends on the interface; both are written to. */
static uint64_t avail(unsigned card, unsigned queue, bool modern)
{
	iobus_write(machine->io, (uint16_t)(IO_BASE + 256 * card + 14), 2, queue);
	uint32_t size = iobus_read(machine->io, (uint16_t)(IO_BASE + 256 * card + 12), 2);
	return modern ? ring(card, queue) + RING_AVAIL : ring(card, queue) + 16ull * size;
}

/* The first of the last four descriptors of the table, which whole requests are made of. */
static uint16_t spare(unsigned card, unsigned queue)
{
	iobus_write(machine->io, (uint16_t)(IO_BASE + 256 * card + 14), 2, queue);
	uint32_t size = iobus_read(machine->io, (uint16_t)(IO_BASE + 256 * card + 12), 2);
	return (uint16_t)(size >= 4 ? size - 4 : 0);
}

static void start(struct fuzz_input *in)
{
	unsigned card = fuzz_u8(in) % CARDS;
	uint32_t features = fuzz_u32(in);
	uint8_t how = fuzz_u8(in);
	bool modern = how & 1;

	configure(card);
	port(card, 18, 1, 0);
	port(card, 18, 1, 3);
	if (!modern)
		port(card, 4, 4, features);
	for (unsigned i = 0; modern && i < 2; i++) {
		mmio(MODERN(card) + 8, 4, i);
		mmio(MODERN(card) + 12, 4, i ? (how & 2 ? 0x101 : 1) : features);
	}
	if (modern)
		mmio(MODERN(card) + 20, 1, 11);
	for (unsigned q = 0; q < QUEUES; q++) {
		uint32_t at = ring(card, q);
		if (!modern) {
			port(card, 14, 2, q);
			port(card, 8, 4, at >> 12);
			continue;
		}
		mmio(MODERN(card) + 22, 2, q);
		mmio(MODERN(card) + 32, 4, at);
		mmio(MODERN(card) + 40, 4, at + RING_AVAIL);
		mmio(MODERN(card) + 48, 4, at + RING_USED);
		mmio(MODERN(card) + 28, 2, 1);
	}
	port(card, 18, 1, modern ? 15 : 7);
}

static void registers(struct fuzz_input *in, enum operation op)
{
	unsigned card = fuzz_u8(in) % CARDS;
	uint32_t offset = op == OP_PORT ? fuzz_u8(in) : fuzz_u16(in);
	uint8_t how = fuzz_u8(in);
	unsigned size = 1u << (how & 0x7F) % 3;
	uint32_t value = fuzz_u32(in);

	offset &= ~(size - 1);
	if (op == OP_PORT && (how & 0x80))
		port(card, offset, size, value);
	else if (op == OP_PORT)
		iobus_read(machine->io, (uint16_t)(IO_BASE + 256 * card + offset), size);
	else if (how & 0x80)
		mmio(MODERN(card) + offset % 0x4000, size, value);
	else
		mem_mmio_read(machine->mem, MODERN(card) + offset % 0x4000, size);
}

static void descriptor(struct fuzz_input *in)
{
	unsigned card = fuzz_u8(in) % CARDS, queue = fuzz_u8(in) % QUEUES, index = fuzz_u8(in);
	uint8_t place = fuzz_u8(in), d[16];

	store_le64(d, a_place(place & 0x7F) + fuzz_u16(in));
	uint32_t len = fuzz_u32(in);
	store_le32(d + 8, place & 0x80 ? len : len % 0x1000);
	store_le16(d + 12, fuzz_u8(in) & 7);
	store_le16(d + 14, fuzz_u8(in));
	mem_write(machine->mem, ring(card, queue) + 16u * index, d, sizeof(d));
}

static void set_index(unsigned card, unsigned queue, uint16_t index)
{
	for (int modern = 0; modern < 2; modern++)
		mem_write(machine->mem, avail(card, queue, modern) + 2, &index, 2);
}

static void kick(unsigned card, unsigned queue)
{
	port(card, 16, 2, queue);
}

static void offer_head(unsigned card, unsigned queue, uint16_t head)
{
	for (int modern = 0; modern < 2; modern++) {
		uint64_t at = avail(card, queue, modern);
		uint8_t b[2];
		mem_read(machine->mem, at + 2, b, 2);
		uint16_t index = load_le16(b);
		mem_write(machine->mem, at + 4 + 2u * (index % 64), &head, 2);
		index++;
		mem_write(machine->mem, at + 2, &index, 2);
	}
}

static void offer(struct fuzz_input *in)
{
	unsigned card = fuzz_u8(in) % CARDS, queue = fuzz_u8(in) % QUEUES, head = fuzz_u8(in);

	offer_head(card, queue, (uint16_t)head);
	if (fuzz_u8(in) & 1)
		kick(card, queue);
}

static void put_desc(uint64_t at, uint64_t to, uint32_t len, uint16_t flags, uint16_t next)
{
	uint8_t d[16];

	store_le64(d, to);
	store_le32(d + 8, len);
	store_le16(d + 12, flags);
	store_le16(d + 14, next);
	mem_write(machine->mem, at, d, sizeof(d));
}

/* A chain that begins well: a header as a disk, or a network card, takes it. */
static void request(struct fuzz_input *in)
{
	unsigned card = fuzz_u8(in) % CARDS, queue = fuzz_u8(in) % QUEUES;
	uint8_t header[16] = {0};
	uint32_t table = ring(card, queue), at = BUFFERS + 0x10000 * queue;
	uint16_t first = spare(card, queue);

	header[0] = fuzz_u8(in);
	store_le16(header + 8, fuzz_u16(in));
	uint16_t len = fuzz_u16(in);
	bool write = fuzz_u8(in) & 1;
	mem_write(machine->mem, at, header, sizeof(header));
	put_desc(table + 16u * first, at, 16, 1, first + 1);
	put_desc(table + 16u * (first + 1u), at + 16, len, write ? 3 : 1, first + 2);
	put_desc(table + 16u * (first + 2u), at + 0xFFF0, 1, 2, 0);
	offer_head(card, queue, first);
	kick(card, queue);
}

/* Requests for places that follow each other on the disk, each with a chain of its own. */
static void burst(struct fuzz_input *in)
{
	enum { MOST = 10, EACH = 0x1800, ALL = MOST * EACH };
	unsigned card = fuzz_u8(in) % CARDS, queue = fuzz_u8(in) % QUEUES;
	unsigned count = fuzz_u8(in) % (MOST + 1), type = fuzz_u8(in), sector = fuzz_u8(in);
	unsigned sectors = fuzz_u8(in) % 8;
	uint8_t how = fuzz_u8(in);
	uint32_t table = ring(card, queue);

	for (unsigned n = 0; n < count; n++) {
		unsigned place = how & 2 ? count - 1 - n : n;
		uint32_t at = BUFFERS + EACH * n + (queue & 1 ? ALL : 0);
		uint8_t header[16] = {(uint8_t)type};
		store_le64(header + 8, sector + (uint64_t)place * sectors);
		mem_write(machine->mem, at, header, sizeof(header));
		put_desc(table + 48 * n, at, 16, 1, (uint16_t)(3 * n + 1));
		put_desc(table + 48 * n + 16, at + 0x200, 512 * sectors, how & 1 ? 3 : 1,
			 (uint16_t)(3 * n + 2));
		put_desc(table + 48 * n + 32, at + 0x100, 1, 2, 0);
		offer_head(card, queue, (uint16_t)(3 * n));
	}
	if (!(how & 4))
		kick(card, queue);
}

/* A queue is taken away, and put somewhere, while it may be in use. */
static void move_queue(struct fuzz_input *in)
{
	unsigned card = fuzz_u8(in) % CARDS, queue = fuzz_u8(in) % QUEUES;
	uint8_t how = fuzz_u8(in), size = fuzz_u8(in);

	mmio(MODERN(card) + 22, 2, queue);
	if (how & 1)
		mmio(MODERN(card) + 58, 2, 1);
	mmio(MODERN(card) + 24, 2, 1u << size % 12);
	for (unsigned n = 0; n < 3; n++) {
		uint8_t place = fuzz_u8(in);
		uint64_t at = place & 0x80 ? a_place(place & 0x7F)
					   : ring(card, queue) +
						     n * (place ? RING_AVAIL / 2u : RING_AVAIL);
		mmio(MODERN(card) + 32 + 8 * n, 4, (uint32_t)at);
		mmio(MODERN(card) + 36 + 8 * n, 4, (uint32_t)(at >> 32));
	}
	if (how & 2)
		mmio(MODERN(card) + 28, 2, 1);
}

/* An indirect table, and a chain that names it. */
static void indirect(struct fuzz_input *in)
{
	unsigned card = fuzz_u8(in) % CARDS, queue = fuzz_u8(in) % QUEUES;
	unsigned count = fuzz_u8(in), flags = fuzz_u8(in) & 7;
	uint32_t table = TABLES + 0x1000 * queue;

	for (unsigned n = 0; n < count && n < 255; n++) {
		uint8_t place = fuzz_u8(in);
		uint64_t to = a_place(place) + fuzz_u16(in);
		uint32_t len = fuzz_u16(in);
		uint8_t how = fuzz_u8(in);
		put_desc(table + 16 * n, to, len,
			 (uint16_t)((n + 1 < count) | (how & 1 ? 2 : 0) | (how == 0xFF ? 4 : 0)),
			 how & 0x80 ? how : (uint16_t)(n + 1));
	}
	uint16_t head = spare(card, queue) + 3;
	put_desc(ring(card, queue) + 16u * head, table, 16 * count, (uint16_t)(flags ^ 4), 0);
	offer_head(card, queue, head);
	kick(card, queue);
}

/* What a driver sends in one readable piece, and a byte or more for the answer. */
static void two_pieces(unsigned card, unsigned queue, const uint8_t *data, size_t len)
{
	uint32_t at = BUFFERS + 0x10000 * queue, table = ring(card, queue);
	uint16_t first = spare(card, queue);

	mem_write(machine->mem, at, data, len);
	put_desc(table + 16u * first, at, (uint32_t)len, 1, first + 1);
	put_desc(table + 16u * (first + 1u), at + 0xFF00, 16, 2, 0);
	offer_head(card, queue, first);
	kick(card, queue);
}

static void control(struct fuzz_input *in)
{
	unsigned card = fuzz_u8(in) % CARDS, queue = fuzz_u8(in) % QUEUES;
	uint8_t data[2 + UINT8_MAX];

	data[0] = fuzz_u8(in);
	data[1] = fuzz_u8(in);
	size_t len = fuzz_u8(in);
	fuzz_take(in, data + 2, len);
	two_pieces(card, queue, data, len + 2);
}

/* A frame that may well be what its header says. */
static void tcp_frame(struct fuzz_input *in)
{
	unsigned card = fuzz_u8(in) % CARDS, queue = fuzz_u8(in) % QUEUES;
	static uint8_t data[12 + 60000];
	uint8_t *f = data + 12;

	memset(data, 0, 256);
	memset(f, 0xFF, 6);
	fuzz_take(in, data, 12);
	size_t len = fuzz_u16(in) % (sizeof(data) - 12 + 1);
	bool v6 = fuzz_u8(in) & 1;
	store_be16(f + 12, v6 ? 0x86DD : 0x0800);
	f[14] = v6 ? 0x60 : 0x45;
	f[v6 ? 20 : 23] = 6;
	store_be16(f + 16, (uint16_t)(len > 14 ? len - 14 : 0));
	f[v6 ? 66 : 46] = 0x50;
	two_pieces(card, queue, data, len + 12);
}

static void vectors(struct fuzz_input *in)
{
	unsigned card = fuzz_u8(in) % CARDS;
	uint8_t masked = fuzz_u8(in), function_masked = fuzz_u8(in) & 1;

	for (unsigned n = 0; n < QUEUES + 2; n++) {
		mmio(MSIX(card) + 16 * n, 4, 0xFEE00000);
		mmio(MSIX(card) + 16 * n + 8, 4, 0x40 + n);
		mmio(MSIX(card) + 16 * n + 12, 4, masked >> n % 8 & 1);
	}
	config_write(card, 0x40, 4, function_masked ? 0xC0000000 : 0x80000000);
	mmio(MODERN(card) + 16, 2, 0);
	port(card, 20, 2, function_masked);
	for (unsigned n = 0; n < QUEUES; n++) {
		mmio(MODERN(card) + 22, 2, n);
		mmio(MODERN(card) + 26, 2, n + 1);
		port(card, 22, 2, n + 1);
	}
}

static void ram(struct fuzz_input *in)
{
	uint32_t at = RINGS + fuzz_u16(in) * 16u;
	uint8_t data[256];
	size_t len = fuzz_u8(in);

	fuzz_take(in, data, len);
	mem_write(machine->mem, at, data, len);
}

static void reset(struct fuzz_input *in)
{
	uint8_t which = fuzz_u8(in);

	if (which % 16) {
		port(which % CARDS, 18, 1, 0);
		return;
	}
	rig_settle(machine);
	state_reset_all(machine->states);
}

static void step(struct fuzz_input *in)
{
	enum operation op = fuzz_u8(in) % OPERATIONS;
	unsigned card;

	switch (op) {
	case OP_START: start(in); break;
	case OP_PORT:
	case OP_MMIO: registers(in, op); break;
	case OP_MSIX:
		card = fuzz_u8(in) % CARDS;
		uint16_t offset = fuzz_u16(in);
		mmio(MSIX(card) + offset % 0x1000, 4, fuzz_u32(in));
		mem_mmio_read(machine->mem, MSIX(card) + (offset % 0x1000 & ~3u), 4);
		break;
	case OP_RAM: ram(in); break;
	case OP_DESC: descriptor(in); break;
	case OP_OFFER: offer(in); break;
	case OP_INDEX:
		card = fuzz_u8(in) % CARDS;
		unsigned queue = fuzz_u8(in) % QUEUES;
		set_index(card, queue, fuzz_u16(in));
		kick(card, queue);
		break;
	case OP_REQUEST: request(in); break;
	case OP_SETTLE: rig_settle(machine); break;
	case OP_RESET: reset(in); break;
	case OP_CONFIG:
		card = fuzz_u8(in) % CARDS;
		uint8_t reg = fuzz_u8(in);
		config_write(card, reg, 4, fuzz_u32(in));
		iobus_read(machine->io, 0xCFC, 4);
		break;
	case OP_TIME: rig_advance(machine, (uint64_t)fuzz_u16(in) * ADVANCE_UNIT); break;
	case OP_HOST: virtio_host_event(host, in); break;
	case OP_QUEUE: move_queue(in); break;
	case OP_TABLE: indirect(in); break;
	case OP_CONTROL: control(in); break;
	case OP_FRAME: tcp_frame(in); break;
	case OP_BURST: burst(in); break;
	case OP_VECTORS: vectors(in); break;
	case OPERATIONS: break;
	}
}

static struct machine *build(void)
{
	static uint8_t disk[2][1 << 20];
	static char drive[2][96];
	static const char *const cards[] = {
		"-m",       "8",
		"-vga",     "none",
		"-net",     "none",
		"-chardev", "null,id=c0",
		"-chardev", "null,id=c1",
		"-netdev",  "hubport,id=h0,hubid=0",
		"-netdev",  "hubport,id=h1,hubid=0",
		"-drive",   drive[0],
		"-drive",   drive[1],
		"-device",  "virtio-blk-pci,addr=10,drive=d0,num-queues=2,queue-size=256",
		"-device",  "virtio-blk-pci,addr=11,drive=d1,queue-size=64",
		"-device",  "virtio-net-pci,addr=12,netdev=h0,romfile=",
		"-device",  "virtio-net-pci,addr=13,netdev=h1,romfile=",
		"-device",  "virtio-serial-pci,addr=14",
		"-device",  "virtconsole,chardev=c0",
		"-device",  "virtserialport,chardev=c1,name=a",
		"-device",  "virtio-rng-pci,addr=15",
		NULL};
	struct error err = ERROR_INIT;

	for (unsigned n = 0; n < 2; n++)
		snprintf(drive[n], sizeof(drive[n]),
			 "file=%s,format=raw,if=none,id=d%u,file.locking=off",
			 fuzz_file(n, disk[n], sizeof(disk[n])), n);
	struct machine *m = rig_machine(cards, &err);
	if (!m) {
		fprintf(stderr, "%s\n", err.text);
		abort();
	}
	return m;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = fuzz_input(data, size);

	static uint8_t before[ROM_SIZE], after[ROM_SIZE];

	machine = build();
	loop_lock(machine->loop);
	host = virtio_host_new(machine, HOST_SLOT);
	mem_read(machine->mem, ROM, before, sizeof(before));
	for (unsigned n = 0; n < CARDS; n++)
		configure(n);
	while (fuzz_left(&in))
		step(&in);
	rig_settle(machine);
	rig_settle(machine);
	mem_read(machine->mem, ROM, after, sizeof(after));
	if (memcmp(before, after, sizeof(before)) != 0)
		abort();
	virtio_host_free(host);
	loop_unlock(machine->loop);
	rig_machine_free(machine);
	return 0;
}

#define BYTES(...)                                                                                 \
	{                                                                                          \
		(const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__})             \
	}
/* `how` 3: modern, with queue reset. */
#define START(card, how) OP_START, card, 0xFF, 0xFF, 0xFF, 0x3F, how
#define HEADER(flags, gso, mss, start, offset)                                                     \
	flags, gso, 0, 0, mss & 0xFF, mss >> 8, start, 0, offset, 0, 0, 0
#define CONTROL(card, queue, ...) OP_CONTROL, card, queue, __VA_ARGS__, OP_SETTLE
#define PORT_EVENT(port, event)   CONTROL(7, 3, port, 0, 6, 0, 0, event, 0, 1, 0)
/* A buffer of 4 KiB for the card to write to. */
#define RECEIVE(card, queue, index)                                                                \
	OP_DESC, card, queue, index, 0, 0, index * 16, 0xFF, 0x0F, 0, 0, 2, 0, OP_OFFER, card,     \
		queue, index, 1
#define HOST_FRAME(queue, target, len)                                                             \
	OP_HOST, 0, queue, HEADER(1, 0, 0, 34, 16), target, len & 0xFF, len >> 8, 20

static const struct {
	const uint8_t *bytes;
	size_t len;
} seeds[] = {
	/* a read, a write, a flush, and a reset with two reads in flight */
	BYTES(START(0, 1), OP_REQUEST, 0, 0, 0, 1, 0, 0, 2, 1, OP_SETTLE, OP_REQUEST, 0, 0, 1, 2, 0,
	      0, 2, 0, OP_SETTLE, OP_REQUEST, 0, 1, 4, 0, 0, 0, 0, 1, OP_REQUEST, 0, 0, 0, 1, 0, 0,
	      2, 1, OP_RESET, 0x06),
	BYTES(START(1, 0), OP_REQUEST, 1, 0, 0, 1, 0, 0, 16, 1, OP_REQUEST, 1, 0, 13, 1, 0, 16, 0,
	      0, OP_RESET, 1, OP_SETTLE, START(1, 0), OP_SETTLE),
	/* a frame from one card to the other, a control command */
	BYTES(START(2, 1), START(3, 1), OP_DESC, 3, 0, 0, 0, 0, 0, 0xFF, 0x0F, 0, 0, 2, 0, OP_OFFER,
	      3, 0, 0, 1, OP_REQUEST, 2, 1, 0, 0, 0, 0x40, 0, 0, OP_SETTLE, OP_REQUEST, 2, 2, 0, 0,
	      0, 2, 0, 0, OP_SETTLE),
	/* a serial port, random numbers */
	BYTES(START(4, 1), OP_REQUEST, 4, 3, 0, 0, 0, 8, 0, 0, OP_REQUEST, 4, 1, 65, 0, 0, 0, 1, 0,
	      OP_SETTLE, START(5, 0), OP_DESC, 5, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0, 2, 0, OP_OFFER,
	      5, 0, 0, 1, OP_SETTLE),
	/* a loop, a jump, an indirect table of any length */
	BYTES(START(0, 1), OP_DESC, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 1, 1, OP_DESC, 0, 0, 1, 0, 0, 0,
	      16, 0, 0, 0, 1, 0, OP_OFFER, 0, 0, 0, 1, OP_SETTLE, START(0, 1), OP_INDEX, 0, 0, 0xFF,
	      0x7F, OP_SETTLE, START(0, 1), OP_DESC, 0, 0, 0, 0x86, 0, 0, 0xF0, 0xFF, 0xFF, 0xFF, 4,
	      0, OP_OFFER, 0, 0, 0, 1, OP_SETTLE),
	/* bus mastering off and on, MSI-X on with a masked vector */
	BYTES(START(0, 1), OP_CONFIG, 0, 4, 3, 0, 0, 0, OP_REQUEST, 0, 0, 0, 1, 0, 0, 2, 1,
	      OP_SETTLE, OP_CONFIG, 0, 4, 7, 0, 0, 0, OP_SETTLE, OP_CONFIG, 0, 0x40, 0, 0, 0, 0x80,
	      OP_MSIX, 0, 0, 0, 0, 0, 0xE0, 0xFE, OP_REQUEST, 0, 0, 0, 1, 0, 0, 2, 1, OP_SETTLE),
	/* queues moved away with requests in flight, to places of all kinds */
	BYTES(START(0, 3), OP_REQUEST, 0, 0, 0, 1, 0, 0, 2, 1, OP_QUEUE, 0, 0, 3, 6, 0, 0, 0,
	      OP_REQUEST, 0, 0, 0, 1, 0, 0, 2, 1, OP_SETTLE, OP_QUEUE, 0, 0, 3, 8, 0x80, 0x83, 0x85,
	      OP_SETTLE, START(0, 3), OP_QUEUE, 0, 0, 3, 8, 0x86, 0x86, 0x86, OP_REQUEST, 0, 0, 0,
	      1, 0, 0, 2, 1, OP_SETTLE, START(0, 3), OP_QUEUE, 0, 0, 3, 4, 0x84, 0x88, 0,
	      OP_SETTLE),
	/* indirect tables: of a read, with an address in ROM, nested, in a loop of its own */
	BYTES(START(0, 3), OP_TABLE, 0, 0, 3, 0, 0, 0, 0, 16, 0, 0, 0, 16, 0, 0, 2, 1, 0, 0, 4, 1,
	      0, 1, OP_SETTLE, OP_TABLE, 0, 0, 2, 0, 8, 0, 0, 16, 0, 0, 8, 0, 0, 0, 2, 1, OP_SETTLE,
	      START(0, 3), OP_TABLE, 0, 0, 2, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 16, 0, 0xFF, OP_SETTLE,
	      START(0, 3), OP_TABLE, 0, 0, 2, 0, 0, 0, 0, 16, 0, 0x80, 5, 0, 0, 16, 0, 0,
	      OP_SETTLE),
	/* the network card on the wire: every control command */
	BYTES(START(6, 3), CONTROL(6, 6, 0, 0, 1, 0), CONTROL(6, 6, 0, 2, 1, 1),
	      CONTROL(6, 6, 1, 0, 20, 1, 0, 0, 0, 2, 0, 0, 0, 0, 9, 1, 0, 0, 0, 1, 0, 0x5E, 0, 0,
		      1),
	      HOST_FRAME(0, 2, 60), HOST_FRAME(0, 3, 60), CONTROL(6, 6, 1, 1, 6, 2, 0, 0, 0, 0, 9),
	      CONTROL(6, 6, 2, 0, 2, 5, 0), CONTROL(6, 6, 2, 1, 2, 5, 0), CONTROL(6, 6, 3, 0, 0),
	      CONTROL(6, 6, 4, 0, 2, 3, 0), CONTROL(6, 6, 5, 0, 8, 2, 0, 0, 0, 0, 0, 0, 0),
	      CONTROL(6, 6, 1, 0, 4, 0xFF, 0xFF, 0, 0), CONTROL(6, 6, 9, 0, 0), OP_OFFER, 6, 6, 61,
	      1, OP_SETTLE),
	/* frames between the cards on the hub, whose checksums are verified */
	BYTES(START(2, 1), START(3, 3), RECEIVE(3, 0, 0), RECEIVE(3, 0, 1), RECEIVE(3, 0, 2),
	      OP_FRAME, 2, 1, HEADER(0, 0, 0, 0, 0), 0x80, 0, 0, OP_SETTLE, OP_FRAME, 2, 1,
	      HEADER(1, 0, 0, 34, 16), 0x80, 0, 0, OP_SETTLE, OP_FRAME, 2, 1,
	      HEADER(1, 0, 0, 54, 16), 0x80, 0, 1, OP_SETTLE),
	/* frames from the wire into too few buffers, full wires, segments of a large frame */
	BYTES(START(6, 3), RECEIVE(6, 0, 0), RECEIVE(6, 0, 1), HOST_FRAME(0, 0, 9000),
	      RECEIVE(6, 0, 2), OP_SETTLE, HOST_FRAME(1, 1, 100), HOST_FRAME(2, 0x82, 60), OP_HOST,
	      1, OP_FRAME, 6, 1, HEADER(1, 1, 1448, 34, 16), 0x40, 0x1F, 0, OP_SETTLE, OP_HOST, 1,
	      OP_SETTLE, OP_HOST, 3, 0, OP_HOST, 3, 0, OP_RESET, 6, OP_HOST, 2, START(6, 3),
	      OP_FRAME, 6, 1, HEADER(1, 1, 1448, 34, 16), 0x40, 0x1F, 0, OP_FRAME, 6, 3,
	      HEADER(1, 4, 100, 54, 16), 0x40, 0x1F, 1, OP_FRAME, 6, 1, HEADER(1, 0, 0, 34, 16),
	      0x40, 0, 0, OP_SETTLE),
	/* a driver of one queue and small headers on that wire */
	BYTES(OP_START, 6, 0x20, 0, 1, 0, 0, RECEIVE(6, 0, 0), HOST_FRAME(0, 0, 1000), OP_SETTLE,
	      OP_FRAME, 6, 1, HEADER(0, 0, 0, 0, 0), 0x40, 0, 0, OP_SETTLE, OP_HOST, 8, 0,
	      OP_SETTLE),
	/* serial ports: the driver announces itself, opens, input, a peer that comes and goes */
	BYTES(START(7, 3), RECEIVE(7, 2, 0), RECEIVE(7, 2, 1), RECEIVE(7, 2, 2), RECEIVE(7, 2, 3),
	      RECEIVE(7, 2, 4), RECEIVE(7, 2, 5), RECEIVE(7, 2, 6), PORT_EVENT(0, 0),
	      PORT_EVENT(0, 3), PORT_EVENT(2, 3), PORT_EVENT(2, 6), PORT_EVENT(1, 6),
	      RECEIVE(7, 6, 0), OP_HOST, 4, 2, 0, 4, OP_SETTLE, OP_HOST, 5, OP_SETTLE,
	      RECEIVE(7, 4, 0), OP_HOST, 4, 1, 0, 4, CONTROL(7, 5, 65, 66, 3, 67, 68, 69), OP_HOST,
	      6, OP_HOST, 5, OP_SETTLE, CONTROL(7, 5, 65, 66, 3, 67, 68, 69),
	      CONTROL(7, 1, 65, 66, 3, 67, 68, 69), OP_QUEUE, 7, 5, 3, 6, 0, 0, 0, OP_HOST, 8, 0,
	      OP_TIME, 1, 0, OP_SETTLE),
	/* random numbers: none, some, more than the limit, time passes, the source ends */
	BYTES(START(8, 3), RECEIVE(8, 0, 0), RECEIVE(8, 0, 1), RECEIVE(8, 0, 2), OP_SETTLE, OP_HOST,
	      7, 10, 0, OP_SETTLE, OP_HOST, 7, 0, 8, OP_SETTLE, RECEIVE(8, 0, 3), OP_SETTLE,
	      OP_TIME, 0xFF, 0, OP_SETTLE, OP_QUEUE, 8, 0, 3, 3, 0, 0, 0, RECEIVE(8, 0, 4), OP_HOST,
	      7, 0, 0, OP_SETTLE, OP_RESET, 8, OP_SETTLE),
	/* MSI-X with all vectors, some masked; state saved and loaded, whole and damaged */
	BYTES(START(0, 3), OP_VECTORS, 0, 0, 0, OP_REQUEST, 0, 0, 0, 1, 0, 0, 2, 1, OP_SETTLE,
	      OP_VECTORS, 0, 0xFF, 0, OP_REQUEST, 0, 0, 0, 1, 0, 0, 2, 1, OP_SETTLE, OP_VECTORS, 0,
	      0, 1, OP_REQUEST, 0, 0, 0, 1, 0, 0, 2, 1, OP_SETTLE, OP_VECTORS, 0, 0, 0, OP_HOST, 8,
	      0, OP_TIME, 1, 0, OP_SETTLE, OP_HOST, 8, 2, 0, 4, 1, 0, 8, 0xFF, OP_TIME, 1, 0,
	      OP_SETTLE),
	/* discard, zeroes, an identity, the cache's switch, what is no request */
	BYTES(START(1, 3), OP_REQUEST, 1, 0, 8, 0, 0, 20, 0, 1, OP_SETTLE,
	      CONTROL(1, 0, 11, 0, 30, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0,
		      0, 0, 8, 0, 0, 0, 0, 0, 0, 0),
	      CONTROL(1, 0, 13, 0, 30, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0,
		      0, 0, 8, 0, 0, 0, 1, 0, 0, 0),
	      OP_REQUEST, 1, 0, 99, 0, 0, 16, 0, 0, OP_SETTLE, OP_MMIO, 1, 0x20, 0x20, 0x80, 0, 0,
	      0, 0, OP_REQUEST, 1, 0, 1, 0, 0, 0, 2, 0, OP_MMIO, 1, 0, 0x20, 0, 0, 0, 0, 0,
	      OP_SETTLE),
	/* neighbours, which are joined, in both directions; a reset of the card, of the queue while they are
	   in flight */
	BYTES(START(0, 3), OP_BURST, 0, 0, 10, 0, 8, 4, 1, OP_SETTLE, OP_SETTLE, OP_BURST, 0, 1, 10,
	      1, 100, 7, 0, OP_SETTLE, OP_SETTLE, OP_BURST, 0, 0, 10, 0, 8, 4, 3, OP_SETTLE,
	      OP_RESET, 9, START(0, 3), OP_BURST, 0, 0, 10, 1, 8, 4, 0, OP_SETTLE, OP_QUEUE, 0, 0,
	      3, 6, 0, 0, 0, OP_BURST, 0, 0, 8, 0, 8, 4, 1, OP_SETTLE, OP_RESET, 16, START(0, 3),
	      OP_BURST, 0, 0, 9, 4, 0, 0, 0, OP_SETTLE, OP_HOST, 8, 0, OP_TIME, 1, 0, OP_SETTLE),
	/* the window in configuration space; a legacy driver's page 0; features without version 1 */
	BYTES(START(0, 3), OP_CONFIG, 0, 0x94, 4, 0, 0, 0, OP_CONFIG, 0, 0x98, 20, 0, 0, 0,
	      OP_CONFIG, 0, 0x9C, 1, 0, 0, 0, OP_CONFIG, 0, 0xA0, 0, 0, 0, 0, OP_CONFIG, 0, 0x98, 0,
	      0x20, 0, 0, OP_CONFIG, 0, 0x9C, 4, 0, 0, 0, OP_CONFIG, 0, 0xA0, 0, 0, 0, 0,
	      START(0, 0), OP_PORT, 0, 8, 0x82, 0, 0, 0, 0, OP_MMIO, 0, 20, 0, 0x80, 11, 0, 0, 0,
	      OP_SETTLE),
};

static size_t seed(unsigned n, uint8_t *buf, size_t max)
{
	if (n >= ARRAY_SIZE(seeds) || seeds[n].len > max)
		return 0;
	memcpy(buf, seeds[n].bytes, seeds[n].len);
	return seeds[n].len;
}

const struct fuzz_target fuzz_target = {
	.name = "virtio", .runs = 1000, .max_len = 2048, .seed = seed};
