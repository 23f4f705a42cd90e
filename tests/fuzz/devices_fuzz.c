/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target: a hostile guest. The input is a list of operations on a whole machine: port and
 * memory accesses, DMA programmed, commands to the disk, CD and floppy controllers, time passing,
 * the screen being drawn, media changed. Nothing is expected but that the machine stays whole.
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
	OP_OUT,       /* which port (u8), log2 of the size (u8), value (u32) */
	OP_IN,        /* which port, size */
	OP_RAW,       /* port (u16), size with bit 7: write, value (u32) */
	OP_OUTS,      /* which port, size, count (u8): from the input */
	OP_INS,       /* which port, size, count (u16) */
	OP_MEMORY,    /* which place (u8), offset (u32), length with bit 7: write (u8), value */
	OP_RAM,       /* address (u16) in units of 16, length (u8): from the input */
	OP_PCI,       /* device (u8), register (u8), size, value (u32) */
	OP_TIME,      /* how long (u16) in units of 64 ns */
	OP_IDE,       /* channel and drive (u8), six registers, command (u8) */
	OP_PACKET,    /* channel and drive (u8), features (u8), byte limit (u16), packet (12) */
	OP_FDC,       /* DOR (u8), length (u8), command bytes */
	OP_DMA,       /* channel (u8), address (u16), page (u8), count (u16), mode (u8) */
	OP_BUSMASTER, /* channel (u8), command (u8), table entries (u8): address (u32), count (u32)
		       */
	OP_SCREEN,    /* full (u8) */
	OP_HOST,      /* what (u8): reset, key, mouse, eject, power button */
	OPERATIONS
};

enum { MAX_PORTS = 512, RAM_SIZE = 4 << 20, BUSMASTER_PORTS = 0xC000, PRD_TABLE = 0x8000 };

static struct {
	uint16_t port[MAX_PORTS];
	unsigned count;
} ports;

static void add_ports(void *opaque, const char *name, uint16_t base, unsigned count)
{
	for (unsigned n = 0; n < count && n < 32 && ports.count < MAX_PORTS; n++)
		ports.port[ports.count++] = (uint16_t)(base + n);
}

static unsigned take_size(struct fuzz_input *in)
{
	return 1u << fuzz_u8(in) % 3;
}

/* The ports' list is too long for one byte to choose from evenly, but not by much. */
static uint16_t take_port(struct fuzz_input *in)
{
	return ports.count ? ports.port[fuzz_u16(in) % ports.count] : 0;
}

static void out8(struct machine *m, unsigned port, uint8_t value)
{
	iobus_write(m->io, (uint16_t)port, 1, value);
}

static void pci_write(struct machine *m, unsigned devfn, unsigned reg, unsigned size,
		      uint32_t value)
{
	iobus_write(m->io, 0xCF8, 4, 0x80000000 | devfn << 8 | (reg & 0xFC));
	iobus_write(m->io, (uint16_t)(0xCFC + (reg & 3 & ~(size - 1))), size, value);
}

/* What firmware does: BARs placed, decoding and bus mastering on. */
static void configure(struct machine *m)
{
	enum { IDE = 1 << 3 | 1, PM = 1 << 3 | 3, VGA = 2 << 3 };

	pci_write(m, IDE, 0x20, 4, BUSMASTER_PORTS);
	pci_write(m, IDE, 0x04, 2, 5);
	pci_write(m, PM, 0x40, 4, 0xB000);
	pci_write(m, PM, 0x80, 1, 1);
	pci_write(m, VGA, 0x10, 4, 0xE0000000);
	pci_write(m, VGA, 0x18, 4, 0xE8000000);
	pci_write(m, VGA, 0x04, 2, 3);
}

static void memory_access(struct machine *m, struct fuzz_input *in)
{
	static const uint64_t places[] = {
		0xA0000,    0xB8000,    0xE0000000, 0xE8000000, 0xE8000400, 0xE8000500,
		0xFEC00000, 0xFEE00000, 0xC0000,    0xF0000,    0xFFFF0000, 0x100000000,
		0,          RAM_SIZE,   0xE0FFFF00, 0xBFFF0,
	};
	static const uint32_t spans[] = {0x20000, 0x1000, 0x1000000, 0x100, 0x20,    0x20,
					 0x40,    0x400,  0x10000,   0x100, 0x10000, 0x10000,
					 0x1000,  0x1000, 0x200,     0x20};
	unsigned place = fuzz_u8(in) % ARRAY_SIZE(places);
	uint64_t at = places[place] + fuzz_u32(in) % spans[place];
	uint8_t how = fuzz_u8(in), data[128];
	size_t len = 1 + (how & 63);

	if (how & 0x40) { /* an aligned access of a CPU */
		unsigned size = 1u << how % 3;
		at &= ~(uint64_t)(size - 1);
		if (how & 0x80)
			mem_mmio_write(m->mem, at, size, fuzz_u32(in));
		else
			mem_mmio_read(m->mem, at, size);
	} else if (how & 0x80) {
		fuzz_take(in, data, len);
		mem_write(m->mem, at, data, len);
	} else {
		mem_read(m->mem, at, data, len);
	}
}

static void ide_registers(struct machine *m, struct fuzz_input *in, unsigned base)
{
	for (unsigned n = 1; n <= 5; n++)
		out8(m, base + n, fuzz_u8(in));
	/* The upper bytes of LBA48. */
	if (fuzz_u8(in) & 1)
		for (unsigned n = 1; n <= 5; n++)
			out8(m, base + n, fuzz_u8(in));
}

static void ide_command(struct machine *m, struct fuzz_input *in)
{
	uint8_t where = fuzz_u8(in);
	unsigned base = where & 1 ? 0x170 : 0x1F0;

	out8(m, base + 6, (uint8_t)((where & 0x4F) | (where & 2 ? 0x10 : 0)));
	ide_registers(m, in, base);
	out8(m, base + 7, fuzz_u8(in));
}

static void packet_command(struct machine *m, struct fuzz_input *in)
{
	uint8_t where = fuzz_u8(in), packet[12];
	unsigned base = where & 1 ? 0x1F0 : 0x170; /* the CD is on the second */
	uint16_t limit;

	out8(m, base + 6, where & 2 ? 0x10 : 0);
	out8(m, base + 1, fuzz_u8(in) & 3);
	limit = fuzz_u16(in);
	out8(m, base + 4, (uint8_t)limit);
	out8(m, base + 5, (uint8_t)(limit >> 8));
	out8(m, base + 7, 0xA0);
	rig_settle(m);
	fuzz_take(in, packet, sizeof(packet));
	iobus_write_block(m->io, (uint16_t)base, 2, packet, sizeof(packet) / 2);
}

static void floppy_command(struct machine *m, struct fuzz_input *in)
{
	uint8_t dor = fuzz_u8(in), len = fuzz_u8(in) % 16;

	out8(m, 0x3F2, dor);
	while (len--)
		out8(m, 0x3F5, fuzz_u8(in));
}

static void program_dma(struct machine *m, struct fuzz_input *in)
{
	static const uint8_t page_port[8] = {0x87, 0x83, 0x81, 0x82, 0x8F, 0x8B, 0x89, 0x8A};
	unsigned channel = fuzz_u8(in) & 7, wide = channel >= 4, n = channel & 3;
	unsigned base = wide ? 0xC0 : 0x00, step = wide ? 2 : 1;
	uint16_t address = fuzz_u16(in);

	out8(m, base + 12 * step, 0); /* the byte pointer */
	out8(m, base + 2 * n * step, (uint8_t)address);
	out8(m, base + 2 * n * step, (uint8_t)(address >> 8));
	out8(m, page_port[channel], fuzz_u8(in));
	uint16_t count = fuzz_u16(in);
	out8(m, base + (2 * n + 1) * step, (uint8_t)count);
	out8(m, base + (2 * n + 1) * step, (uint8_t)(count >> 8));
	out8(m, base + 11 * step, (uint8_t)((fuzz_u8(in) & 0xFC) | n));
	out8(m, base + 10 * step, (uint8_t)n); /* unmasked */
}

static void start_bus_master(struct machine *m, struct fuzz_input *in)
{
	unsigned base = BUSMASTER_PORTS + 8 * (fuzz_u8(in) & 1);
	uint8_t command = fuzz_u8(in), entries = fuzz_u8(in) % 9, prd[8];

	for (unsigned n = 0; n < entries; n++) {
		fuzz_take(in, prd, sizeof(prd));
		if (prd[2] & 1) /* often within RAM */
			store_le32(prd, load_le32(prd) % RAM_SIZE);
		mem_write(m->mem, PRD_TABLE + 8 * n, prd, sizeof(prd));
	}
	iobus_write(m->io, (uint16_t)(base + 4), 4, PRD_TABLE);
	out8(m, base + 2, 6);
	out8(m, base, command);
}

static void look_at_screen(struct machine *m, bool full)
{
	static struct text_screen screen;
	struct rect dirty;

	m->display->ops->refresh(m->display->opaque, &m->display->surface, &dirty, full);
	m->display->ops->text(m->display->opaque, &screen);
}

static void host_action(struct machine *m, struct fuzz_input *in)
{
	struct error err = ERROR_INIT;
	uint8_t what = fuzz_u8(in), value = fuzz_u8(in);

	switch (what % 8) {
	case 0: state_reset_all(m->states); break;
	case 1: input_key(&m->input, value, what & 8); break;
	case 2: input_mouse(&m->input, (int8_t)value, (int8_t)what, what & 7, value & 7); break;
	case 3: drive_eject(m->drives.ide[2], value & 1, &err); break;
	case 4: drive_eject(m->drives.floppy[0], true, &err); break;
	case 5: drive_change(m->drives.ide[2], fuzz_file(0, "CD", 2), "raw", NULL, &err); break;
	case 6: drive_change(m->drives.floppy[0], fuzz_file(1, "", 0), "raw", NULL, &err); break;
	default: machine_powerdown(m); break;
	}
}

static void operate(struct machine *m, struct fuzz_input *in)
{
	static uint8_t buffer[4 * 65536];
	uint16_t port;
	unsigned size, count;

	switch (fuzz_u8(in) % OPERATIONS) {
	case OP_OUT:
		port = take_port(in);
		size = take_size(in);
		iobus_write(m->io, port, size, fuzz_u32(in));
		break;
	case OP_IN:
		port = take_port(in);
		iobus_read(m->io, port, take_size(in));
		break;
	case OP_RAW:
		port = fuzz_u16(in);
		count = fuzz_u8(in);
		if (count & 0x80)
			iobus_write(m->io, port, 1u << count % 3, fuzz_u32(in));
		else
			iobus_read(m->io, port, 1u << count % 3);
		break;
	case OP_OUTS:
		port = take_port(in);
		size = take_size(in);
		count = 1 + fuzz_u8(in);
		fuzz_take(in, buffer, size * (count & 15));
		iobus_write_block(m->io, port, size, buffer, count);
		break;
	case OP_INS:
		port = take_port(in);
		size = take_size(in);
		iobus_read_block(m->io, port, size, buffer, 1 + fuzz_u16(in) % 4096);
		break;
	case OP_MEMORY: memory_access(m, in); break;
	case OP_RAM:
		count = fuzz_u16(in) * 16;
		size = fuzz_u8(in) & 63;
		fuzz_take(in, buffer, size);
		mem_write(m->mem, count, buffer, size);
		break;
	case OP_PCI: {
		static const uint8_t devfn[] = {0, 8, 9, 11, 16};
		unsigned device = fuzz_u8(in), reg = fuzz_u8(in);
		size = take_size(in);
		pci_write(m, device & 0x80 ? device & 0x7F : devfn[device % ARRAY_SIZE(devfn)], reg,
			  size, fuzz_u32(in));
		break;
	}
	case OP_TIME:
		rig_settle(m);
		rig_advance(m, 64 * (uint64_t)fuzz_u16(in));
		rig_settle(m);
		break;
	case OP_IDE: ide_command(m, in); break;
	case OP_PACKET: packet_command(m, in); break;
	case OP_FDC: floppy_command(m, in); break;
	case OP_DMA: program_dma(m, in); break;
	case OP_BUSMASTER: start_bus_master(m, in); break;
	case OP_SCREEN: look_at_screen(m, fuzz_u8(in) & 1); break;
	case OP_HOST: host_action(m, in); break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *options[32] = {"-m",        "4",    "-serial", "null",
				   "-parallel", "null", "-device", "isa-debug-exit,iobase=0x501",
				   "-debugcon", "null", "-smp",    "2"};
	unsigned count = 12;
	struct error err = ERROR_INIT;
	struct fuzz_input in = fuzz_input(data, size);

	for (const char *const *o = rig_drives(); *o; o++)
		options[count++] = *o;
	struct machine *m = rig_machine(options, &err);
	if (!m) {
		fprintf(stderr, "no machine: %s\n", err.text);
		abort();
	}
	loop_lock(m->loop);
	configure(m);
	ports.count = 0;
	iobus_for_each(m->io, add_ports, NULL);
	while (fuzz_left(&in))
		operate(m, &in);
	rig_settle(m);
	loop_unlock(m->loop);
	rig_machine_free(m);
	return 0;
}

/* ---- Seeds: what drivers do ---- */

#define BYTES(...)                                                                                 \
	{                                                                                          \
		(const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__})             \
	}

/* IDE: drive, features, count, LBA low, mid, high, no LBA48, command. */
#define IDE_COMMAND(drive, count, low, command) OP_IDE, drive, 0, count, low, 0, 0, 0, command
#define SOME_TIME                               OP_TIME, 0xFF, 0xFF
/* Reads or writes `words` words from the data port by its number. */
#define RAW_IN(port)         OP_RAW, (port)&0xFF, (port) >> 8, 0
#define RAW_OUT(port, value) OP_RAW, (port)&0xFF, (port) >> 8, 0x80, value, 0, 0, 0
#define PACKET(...)          OP_PACKET, 0, 0, 0xFE, 0xFF, __VA_ARGS__
#define PRD(address_low, address_mid, len_low, len_high, flags)                                    \
	address_low, address_mid, 0, 0, len_low, len_high, 0, flags
#define FLOPPY_DMA(mode) OP_DMA, 2, 0, 0, 2, 0xFF, 0x01, mode

static const struct {
	const uint8_t *bytes;
	size_t len;
} seeds[] = {
	BYTES(IDE_COMMAND(0x40, 1, 0, 0xEC), SOME_TIME, RAW_IN(0x1F7)),
	BYTES(IDE_COMMAND(0x40, 4, 2, 0x20), SOME_TIME, RAW_IN(0x1F0), RAW_IN(0x1F0)),
	BYTES(IDE_COMMAND(0x40, 4, 2, 0xC6), SOME_TIME, IDE_COMMAND(0x40, 8, 2, 0xC4), SOME_TIME),
	BYTES(IDE_COMMAND(0x40, 2, 1, 0x30), SOME_TIME, RAW_OUT(0x1F0, 5), SOME_TIME),
	BYTES(IDE_COMMAND(0x40, 8, 0, 0xC8), OP_BUSMASTER, 0, 9, 2, PRD(0, 0x10, 0, 8, 0),
	      PRD(0, 0x20, 0, 8, 0x80), SOME_TIME, RAW_IN(0xC002)),
	BYTES(IDE_COMMAND(0x40, 8, 0, 0xCA), OP_BUSMASTER, 0, 1, 1, PRD(0, 0x10, 0, 0x10, 0x80),
	      SOME_TIME, RAW_IN(0xC002), IDE_COMMAND(0x40, 0, 0, 0xE7), SOME_TIME),
	BYTES(IDE_COMMAND(0x42, 16, 0, 0x24), SOME_TIME, IDE_COMMAND(0x42, 1, 0, 0x35),
	      OP_BUSMASTER, 0, 1, 1, PRD(1, 0x10, 2, 0, 0x80), SOME_TIME, RAW_OUT(0x3F6, 4),
	      SOME_TIME),
	BYTES(PACKET(0x12, 0, 0, 0, 36, 0, 0, 0, 0, 0, 0, 0), SOME_TIME, RAW_IN(0x170)),
	BYTES(PACKET(0x28, 0, 0, 0, 0, 3, 0, 0, 4, 0, 0, 0), SOME_TIME, RAW_IN(0x170), SOME_TIME),
	BYTES(PACKET(0xBE, 0, 0, 0, 0, 3, 0, 0, 4, 0xF8, 0, 0), SOME_TIME, RAW_IN(0x170)),
	BYTES(OP_PACKET, 0, 1, 0, 8, 0x28, 0, 0, 0, 0, 3, 0, 0, 4, 0, 0, 0, OP_BUSMASTER, 1, 9, 1,
	      PRD(0, 0x10, 0, 0x20, 0x80), SOME_TIME),
	BYTES(PACKET(0x43, 2, 0, 0, 0, 0, 0, 0, 0xFF, 0, 0, 0), SOME_TIME,
	      PACKET(0x46, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0, 0, 0), SOME_TIME,
	      PACKET(0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8, 0, 0, 0), SOME_TIME,
	      PACKET(0x5A, 0, 0x2A, 0, 0, 0, 0, 0, 0xFF, 0, 0, 0), SOME_TIME),
	BYTES(PACKET(0x1B, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0), SOME_TIME, OP_HOST, 5, 0,
	      PACKET(0x03, 0, 0, 0, 18, 0, 0, 0, 0, 0, 0, 0), SOME_TIME),
	BYTES(OP_FDC, 0x1C, 2, 7, 0, SOME_TIME, OP_FDC, 0x1C, 1, 8, RAW_IN(0x3F5), RAW_IN(0x3F5),
	      OP_FDC, 0x1C, 3, 0x0F, 0, 5, SOME_TIME),
	BYTES(FLOPPY_DMA(0x44), OP_FDC, 0x1C, 9, 0xE6, 0, 0, 0, 1, 2, 18, 27, 0xFF, SOME_TIME,
	      SOME_TIME, RAW_IN(0x3F5)),
	BYTES(FLOPPY_DMA(0x48), OP_FDC, 0x1C, 9, 0xC5, 0, 0, 0, 1, 2, 18, 27, 0xFF, SOME_TIME,
	      SOME_TIME, RAW_IN(0x3F5)),
	BYTES(FLOPPY_DMA(0x48), OP_FDC, 0x1C, 6, 0x4D, 0, 2, 18, 27, 0xF6, SOME_TIME, OP_FDC, 0x1C,
	      1, 0x10, OP_FDC, 0x1C, 4, 0x13, 0, 0x57, 0),
	BYTES(OP_MEMORY, 4, 0, 0, 0, 0, 0xC1, 3, 0, 0, 0, RAW_OUT(0x3C0, 0x20), OP_SCREEN, 1),
	BYTES(RAW_OUT(0x1CE, 1), OP_RAW, 0xCF, 1, 0x81, 0x80, 2, 0, 0, RAW_OUT(0x1CE, 2), OP_RAW,
	      0xCF, 1, 0x81, 0xE0, 1, 0, 0, RAW_OUT(0x1CE, 3), OP_RAW, 0xCF, 1, 0x81, 32, 0, 0, 0,
	      RAW_OUT(0x1CE, 4), OP_RAW, 0xCF, 1, 0x81, 0x41, 0, 0, 0, RAW_OUT(0x3C0, 0x20),
	      OP_SCREEN, 0, OP_MEMORY, 2, 0, 1, 0, 0, 0xBF, 1, 2, 3, 4, OP_SCREEN, 0),
	BYTES(RAW_OUT(0x43, 0x34), RAW_OUT(0x40, 1), RAW_OUT(0x40, 0), SOME_TIME,
	      RAW_OUT(0x20, 0x11), RAW_OUT(0x21, 8), RAW_OUT(0x21, 4), RAW_OUT(0x21, 1),
	      RAW_OUT(0x21, 0), SOME_TIME),
	BYTES(OP_MEMORY, 7, 0x80, 3, 0, 0, 0xC2, 1, 0, 0, 0, OP_MEMORY, 7, 0x20, 3, 0, 0, 0xC2,
	      0x30, 0, 2, 0, SOME_TIME, OP_MEMORY, 6, 0, 0, 0, 0, 0xC2, 0x10, 0, 0, 0),
	BYTES(RAW_OUT(0x64, 0x60), RAW_OUT(0x60, 0x47), RAW_OUT(0x64, 0xD4), RAW_OUT(0x60, 0xFF),
	      RAW_IN(0x60), OP_HOST, 9, 0x1E, OP_HOST, 2, 5, SOME_TIME),
	BYTES(OP_RAM, 0, 0, 16, 0, 0, 0, 2, 0, 0, 0, 56, 0, 0, 0, 0, 0, 0, 0x10, 0, OP_RAW, 0x18, 5,
	      0x82, 0, 0, 0, 0, RAW_IN(0x511)),
	BYTES(OP_PCI, 4, 0x10, 2, 0xFF, 0xFF, 0xFF, 0xFF, OP_PCI, 0, 0x59, 0, 0x33, 0, 0, 0, OP_PCI,
	      0, 0x72, 0, 0x4A, 0, 0, 0, RAW_OUT(0xCF9, 6), RAW_OUT(0x92, 1)),
	BYTES(RAW_OUT(0x70, 0x8B), RAW_OUT(0x71, 0x72), SOME_TIME, RAW_OUT(0x3F9, 0xF),
	      RAW_OUT(0x3F8, 65), RAW_IN(0x3FA), OP_RAW, 0x04, 0xB0, 0x81, 1, 0x20, 0, 0),
};

static size_t seed(unsigned n, uint8_t *buf, size_t max)
{
	if (n >= ARRAY_SIZE(seeds) || seeds[n].len > max)
		return 0;
	memcpy(buf, seeds[n].bytes, seeds[n].len);
	return seeds[n].len;
}

const struct fuzz_target fuzz_target = {
	.name = "devices", .runs = 1500, .max_len = 2048, .seed = seed};
