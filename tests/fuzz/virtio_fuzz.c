/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target: a hostile driver of virtio cards. The input is a list of operations on a machine with
 * two disks, two network cards on a hub, a serial card and a random number generator: registers of
 * both interfaces, rings laid out well or badly, descriptors with any address and length, indices
 * that jump, resets while requests are in flight, bus mastering and MSI-X switched at will. Nothing
 * is expected but that the machine stays whole and every operation ends.
 */
#include "core/iobus.h"
#include "core/memory.h"
#include "core/state.h"
#include "lib/bytes.h"
#include "lib/text.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/rig.h"
#include <stdio.h>
#include <stdlib.h>

/* Each operation is its number and then its operands. */
enum operation {
	OP_START, /* card (u8), features (u32), how (u8): 1 modern */
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
	OP_RESET,   /* card; 7 of 8: only the card */
	OP_CONFIG,  /* card, register (u8), value (u32) */
	OP_TIME,    /* how long (u16) in units of 64 us */
	OPERATIONS
};

enum {
	CARDS = 6,
	QUEUES = 6,
	FIRST_SLOT = 0x10,
	IO_BASE = 0xC000, /* 256 ports a card */
	RINGS = 0x100000, /* 64 KiB a queue, 512 KiB a card */
	RING_AVAIL = 0x8000,
	RING_USED = 0xA000,
	RAM_MIB = 8,
	ADVANCE_UNIT = 64000,
};
#define MODERN(card) (0xE0000000u + (card)*0x100000u)
#define MSIX(card)   (0xE0080000u + (card)*0x100000u)

static struct machine *machine;

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

static void start(struct fuzz_input *in)
{
	unsigned card = fuzz_u8(in) % CARDS;
	uint32_t features = fuzz_u32(in);
	bool modern = fuzz_u8(in) & 1;

	configure(card);
	port(card, 18, 1, 0);
	port(card, 18, 1, 3);
	if (!modern)
		port(card, 4, 4, features);
	for (unsigned i = 0; modern && i < 2; i++) {
		mmio(MODERN(card) + 8, 4, i);
		mmio(MODERN(card) + 12, 4, i ? 1 : features);
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
	static const uint64_t places[] = {
		0x300000,   0,     (RAM_MIB << 20) - 0x100, 0xA0000, 0xF0000,
		0xE0000000, RINGS, 0xFFFFFFFFFFFFFF00};
	unsigned card = fuzz_u8(in) % CARDS, queue = fuzz_u8(in) % QUEUES, index = fuzz_u8(in);
	uint8_t place = fuzz_u8(in), d[16];

	store_le64(d, places[place % ARRAY_SIZE(places)] + fuzz_u16(in));
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

/* A chain that begins well: a header as a disk, or a network card, takes it. */
static void request(struct fuzz_input *in)
{
	unsigned card = fuzz_u8(in) % CARDS, queue = fuzz_u8(in) % QUEUES;
	uint8_t header[16] = {0}, d[16] = {0};
	uint32_t table = ring(card, queue), at = 0x400000 + 0x10000 * queue;

	header[0] = fuzz_u8(in);
	store_le16(header + 8, fuzz_u16(in));
	uint16_t len = fuzz_u16(in);
	bool write = fuzz_u8(in) & 1;
	mem_write(machine->mem, at, header, sizeof(header));
	store_le64(d, at);
	store_le32(d + 8, 16);
	store_le16(d + 12, 1);
	store_le16(d + 14, 201);
	mem_write(machine->mem, table + 16 * 200, d, sizeof(d));
	store_le64(d, at + 16);
	store_le32(d + 8, len);
	store_le16(d + 12, write ? 3 : 1);
	store_le16(d + 14, 202);
	mem_write(machine->mem, table + 16 * 201, d, sizeof(d));
	store_le64(d, at + 0xFFF0);
	store_le32(d + 8, 1);
	store_le16(d + 12, 2);
	mem_write(machine->mem, table + 16 * 202, d, sizeof(d));
	offer_head(card, queue, 200);
	kick(card, queue);
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

	if (which % 8) {
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
		break;
	case OP_TIME: rig_advance(machine, (uint64_t)fuzz_u16(in) * ADVANCE_UNIT); break;
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

	machine = build();
	loop_lock(machine->loop);
	for (unsigned n = 0; n < CARDS; n++)
		configure(n);
	while (fuzz_left(&in))
		step(&in);
	rig_settle(machine);
	rig_settle(machine);
	loop_unlock(machine->loop);
	rig_machine_free(machine);
	return 0;
}

#define BYTES(...)                                                                                 \
	{                                                                                          \
		(const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__})             \
	}
#define START(card, modern) OP_START, card, 0xFF, 0xFF, 0xFF, 0x3F, modern

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
