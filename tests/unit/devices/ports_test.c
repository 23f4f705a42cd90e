/* SPDX-License-Identifier: MIT */
/* The UART, the parallel port, the DMA controllers and the debug ports. */
#include "core/chardev.h"
#include "devices/debug_exit.h"
#include "devices/debugcon.h"
#include "devices/i8237.h"
#include "devices/parallel.h"
#include "devices/serial16550.h"
#include "rig.h"
#include <string.h>
#include <unistd.h>

enum { COM1 = 0x3F8 };

struct fixture {
	struct rig rig;
	struct chardev *chr;
	struct serial16550 *uart;
	struct i8237 *dma;
	struct mem_region *ram;
	unsigned dma_ready;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	rig_init(&f->rig);
	f->chr = chardev_new_memory(f->rig.env.loop);
	f->uart = serial16550_new(&f->rig.env, 0, COM1, rig_line(&f->rig, 4), f->chr);
	f->dma = i8237_new(&f->rig.env);
	f->ram = mem_region_new_ram(f->rig.env.mem, "ram", 4 << 20, NULL);
	mem_mapping_set(mem_map(f->rig.env.mem, f->ram, 0, 0, 4 << 20, 0), 0, MEM_RW);
	state_reset_all(f->rig.env.states);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	serial16550_free(f->uart);
	i8237_free(f->dma);
	chardev_free(f->chr);
	rig_fini(&f->rig);
	free(f);
	return 0;
}

static uint8_t in(struct fixture *f, unsigned reg)
{
	return inb(&f->rig, (uint16_t)(COM1 + reg));
}

static void out(struct fixture *f, unsigned reg, uint8_t value)
{
	outb(&f->rig, (uint16_t)(COM1 + reg), value);
}

static void sending_interrupts_when_empty(void **state)
{
	struct fixture *f = *state;
	size_t len;
	assert_int_equal(in(f, 5), 0x60);
	assert_int_equal(in(f, 2), 0x01);
	out(f, 1, 0x02);
	assert_true(f->rig.line[4]); /* enabling while empty */
	assert_int_equal(in(f, 2), 0x02);
	assert_false(f->rig.line[4]); /* reading IIR took it */
	out(f, 0, 'A');
	assert_true(f->rig.line[4]);
	assert_string_equal(chardev_memory_output(f->chr, &len), "A");
	iobus_write_block(f->rig.env.io, COM1, 1, "hello", 5);
	assert_string_equal(chardev_memory_output(f->chr, &len), "Ahello");
}

static void receiving_without_fifo(void **state)
{
	struct fixture *f = *state;
	out(f, 1, 0x05);
	chardev_memory_input(f->chr, "xy", 2);
	assert_true(f->rig.line[4]);
	assert_int_equal(in(f, 2), 0x04);
	assert_int_equal(in(f, 5), 0x61);
	assert_int_equal(in(f, 0), 'x');
	assert_false(f->rig.line[4]);
	loop_unlock(f->rig.env.loop);
	loop_run_once(f->rig.env.loop, 0);
	loop_lock(f->rig.env.loop);
	assert_int_equal(in(f, 0), 'y');
	assert_int_equal(in(f, 5), 0x60);
}

static void fifo_trigger_and_timeout(void **state)
{
	struct fixture *f = *state;
	out(f, 3, 0x83);
	out(f, 0, 1); /* 115200 */
	out(f, 1, 0);
	out(f, 3, 0x03);
	out(f, 2, 0x81); /* FIFO, trigger 8 */
	out(f, 1, 0x01);
	assert_int_equal(in(f, 2), 0xC1);
	chardev_memory_input(f->chr, "1234567", 7);
	assert_false(f->rig.line[4]);
	assert_int_equal(in(f, 5) & 1, 1);
	advance(f->rig.env.clock, 346000);
	assert_false(f->rig.line[4]);
	advance(f->rig.env.clock, 3000); /* 4 characters of 10 bits */
	assert_true(f->rig.line[4]);
	assert_int_equal(in(f, 2), 0xCC);
	in(f, 0);
	assert_false(f->rig.line[4]);
	chardev_memory_input(f->chr, "89", 2);
	assert_int_equal(in(f, 2), 0xC4);
	chardev_memory_input(f->chr, "abcdefghijkl", 12);
	for (const char *p = "23456789abcdefgh"; *p; p++)
		assert_int_equal(in(f, 0), *p);
	out(f, 2, 0x83); /* clears nothing that has not arrived */
	loop_unlock(f->rig.env.loop);
	loop_run_once(f->rig.env.loop, 0);
	loop_lock(f->rig.env.loop);
	for (const char *p = "ijkl"; *p; p++)
		assert_int_equal(in(f, 0), *p);
	assert_int_equal(in(f, 5), 0x60);
}

static void loopback_shows_modem_lines_and_data(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(in(f, 6), 0xB0);
	out(f, 4, 0x1A); /* loop, RTS, OUT2 */
	assert_int_equal(in(f, 6) & 0xF0, 0x90);
	out(f, 4, 0x1E);
	in(f, 6);
	out(f, 1, 0x08);
	out(f, 4, 0x1A); /* OUT1 falls: trailing edge of RI */
	assert_true(f->rig.line[4]);
	assert_int_equal(in(f, 2), 0x00);
	assert_int_equal(in(f, 6) & 0x0F, 0x04);
	assert_false(f->rig.line[4]);
	out(f, 0, 'z');
	assert_int_equal(in(f, 5), 0x61);
	assert_int_equal(in(f, 0), 'z');
	out(f, 0, '1');
	out(f, 0, '2');
	assert_int_equal(in(f, 5) & 0x02, 0x02); /* overrun */
	assert_int_equal(in(f, 5) & 0x02, 0);
	assert_int_equal(in(f, 0), '2');
	size_t len;
	chardev_memory_output(f->chr, &len);
	assert_int_equal(len, 0);
}

static void registers_hold(void **state)
{
	struct fixture *f = *state;
	out(f, 7, 0x5A);
	assert_int_equal(in(f, 7), 0x5A);
	out(f, 1, 0xFF);
	assert_int_equal(in(f, 1), 0x0F);
	out(f, 4, 0xFF);
	assert_int_equal(in(f, 4), 0x1F);
	out(f, 3, 0x80);
	out(f, 0, 0x34);
	out(f, 1, 0x12);
	assert_int_equal(in(f, 0), 0x34);
	assert_int_equal(in(f, 1), 0x12);
	assert_true(f->rig.line[4]); /* THRE */
	rig_save_reset_load(&f->rig);
	assert_true(f->rig.line[4]);
	assert_int_equal(in(f, 0), 0x34);
	assert_int_equal(in(f, 7), 0x5A);
}

static void without_a_peer_the_port_stays_ready(void **state)
{
	struct fixture *f = *state;
	char path[] = "/tmp/minivm-uart-XXXXXX";
	assert_non_null(mkdtemp(path));
	char *spec = xasprintf("unix:%s/s,server=on,wait=off", path);
	struct chardev *chr = chardev_open(f->rig.env.loop, "u", spec, NULL);
	/* Nobody connected: what is written is gone and the port stays ready. */
	struct serial16550 *com2 =
		serial16550_new(&f->rig.env, 1, 0x2F8, rig_line(&f->rig, 3), chr);
	outb(&f->rig, 0x2F8, 'x');
	assert_int_equal(inb(&f->rig, 0x2FD), 0x60);
	serial16550_free(com2);
	chardev_free(chr);
	assert_int_equal(rmdir(path), 0);
	free(spec);
}

static void dma_moves_what_was_programmed(void **state)
{
	struct fixture *f = *state;
	uint8_t buf[600], back[600];
	bool tc;
	for (int i = 0; i < 600; i++)
		buf[i] = (uint8_t)i;
	/* Channel 2: write 512 bytes to 0x12FF00; the address wraps within 64 KiB. */
	outb(&f->rig, 0x0A, 6);
	outb(&f->rig, 0x0B, 0x46);
	outb(&f->rig, 0x0C, 0);
	outb(&f->rig, 0x04, 0x00);
	outb(&f->rig, 0x04, 0xFF);
	outb(&f->rig, 0x05, 0xFF);
	outb(&f->rig, 0x05, 0x01);
	outb(&f->rig, 0x81, 0x12);
	assert_int_equal(i8237_transfer(f->dma, 2, buf, 600, true, &tc), 0); /* masked */
	outb(&f->rig, 0x0A, 2);
	assert_int_equal(i8237_transfer(f->dma, 2, buf, 600, false, &tc), 0); /* direction */
	assert_int_equal(i8237_transfer(f->dma, 2, buf, 100, true, &tc), 100);
	assert_false(tc);
	assert_int_equal(i8237_transfer(f->dma, 2, buf + 100, 500, true, &tc), 412);
	assert_true(tc);
	mem_read(f->rig.env.mem, 0x12FF00, back, 256);
	mem_read(f->rig.env.mem, 0x120000, back + 256, 256);
	assert_memory_equal(buf, back, 512);
	assert_int_equal(inb(&f->rig, 0x08) & 0x0F, 4);
	assert_int_equal(inb(&f->rig, 0x08) & 0x0F, 0);
	assert_false(i8237_ready(f->dma, 2)); /* masked at terminal count */
	outb(&f->rig, 0x0C, 0);
	assert_int_equal(inb(&f->rig, 0x05), 0xFF);
	assert_int_equal(inb(&f->rig, 0x05), 0xFF);
}

static void dma_auto_init_verify_and_down(void **state)
{
	struct fixture *f = *state;
	uint8_t buf[8] = {1, 2, 3, 4, 5, 6, 7, 8}, back[8];
	bool tc;
	outb(&f->rig, 0x0B, 0x75); /* channel 1: single, down, auto, write */
	outb(&f->rig, 0x02, 0x07);
	outb(&f->rig, 0x02, 0x10);
	outb(&f->rig, 0x03, 7);
	outb(&f->rig, 0x03, 0);
	outb(&f->rig, 0x0E, 0);
	assert_int_equal(i8237_transfer(f->dma, 1, buf, 8, true, &tc), 8);
	assert_true(tc && i8237_ready(f->dma, 1));
	mem_read(f->rig.env.mem, 0x1000, back, 8);
	for (int i = 0; i < 8; i++)
		assert_int_equal(back[i], 8 - i);
	assert_int_equal(inb(&f->rig, 0x02), 0x07);
	assert_int_equal(inb(&f->rig, 0x02), 0x10);
	outb(&f->rig, 0x0B, 0x41); /* verify */
	memset(buf, 0xEE, 8);
	assert_int_equal(i8237_transfer(f->dma, 1, buf, 8, true, &tc), 8);
	mem_read(f->rig.env.mem, 0x1000, back, 8);
	assert_int_equal(back[0], 8);
}

static void dma_words_use_17_bit_addresses(void **state)
{
	struct fixture *f = *state;
	uint8_t buf[16] = "0123456789abcde", back[16];
	bool tc;
	mem_write(f->rig.env.mem, 0x30000 + 0x8000 * 2, buf, 16);
	outb(&f->rig, 0xD6, 0x49); /* channel 5: read */
	outb(&f->rig, 0xD8, 0);
	outb(&f->rig, 0xC4, 0x00);
	outb(&f->rig, 0xC4, 0x00);
	outb(&f->rig, 0xC6, 0x07);
	outb(&f->rig, 0xC6, 0x00);
	outb(&f->rig, 0x8B, 0x05); /* bit 0 is not used */
	outb(&f->rig, 0xD4, 1);
	assert_int_equal(i8237_transfer(f->dma, 5, back, 16, false, &tc), 16);
	assert_true(tc);
	assert_memory_equal(buf, back, 16);
	outb(&f->rig, 0x80, 0x42);
	assert_int_equal(inb(&f->rig, 0x80), 0x42);
}

static void on_ready(void *opaque)
{
	((struct fixture *)opaque)->dma_ready++;
}

static void dma_calls_a_waiting_client(void **state)
{
	struct fixture *f = *state;
	i8237_set_client(f->dma, 2, on_ready, f);
	outb(&f->rig, 0x0A, 2);
	assert_int_equal(f->dma_ready, 0);
	outb(&f->rig, 0x0A, 6);
	i8237_request(f->dma, 2, true);
	assert_int_equal(inb(&f->rig, 0x08), 0x40);
	outb(&f->rig, 0x0A, 2);
	assert_int_equal(f->dma_ready, 1);
	i8237_request(f->dma, 2, false);
	outb(&f->rig, 0x0A, 2);
	assert_int_equal(f->dma_ready, 1);
}

static void printing_strobes_and_interrupts(void **state)
{
	struct fixture *f = *state;
	struct chardev *paper = chardev_new_memory(f->rig.env.loop);
	struct parallel *lpt = parallel_new(&f->rig.env, 0, 0x378, rig_line(&f->rig, 7), paper);
	for (const char *p = "Hi"; *p; p++) {
		outb(&f->rig, 0x378, (uint8_t)*p);
		assert_int_equal(inb(&f->rig, 0x379), 0xDF);
		outb(&f->rig, 0x37A, 0x1D);
		outb(&f->rig, 0x37A, 0x1C);
	}
	assert_string_equal(chardev_memory_output(paper, NULL), "Hi");
	assert_int_equal(f->rig.edges[7], 2);
	assert_int_equal(inb(&f->rig, 0x378), 'i');
	assert_int_equal(inb(&f->rig, 0x37A), 0xDC);
	parallel_free(lpt);
	chardev_free(paper);
}

static void debug_ports(void **state)
{
	struct fixture *f = *state;
	struct debugcon *con = debugcon_new(&f->rig.env, DEBUGCON_PORT, f->chr);
	struct debug_exit *quit = debug_exit_new(&f->rig.env, DEBUG_EXIT_PORT, DEBUG_EXIT_SIZE);
	assert_int_equal(inb(&f->rig, 0x402), 0xE9);
	outb(&f->rig, 0x402, 'q');
	assert_string_equal(chardev_memory_output(f->chr, NULL), "q");
	outb(&f->rig, 0x501, 0x10);
	assert_int_equal(f->rig.exit_status, 0x21);
	iobus_write(f->rig.env.io, 0x501, 2, 3);
	assert_int_equal(f->rig.exit_status, 7);
	debug_exit_free(quit);
	debugcon_free(con);
	assert_int_equal(inb(&f->rig, 0x402), 0xFF);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(sending_interrupts_when_empty),
		T(receiving_without_fifo),
		T(fifo_trigger_and_timeout),
		T(loopback_shows_modem_lines_and_data),
		T(registers_hold),
		T(without_a_peer_the_port_stays_ready),
		T(dma_moves_what_was_programmed),
		T(dma_auto_init_verify_and_down),
		T(dma_words_use_17_bit_addresses),
		T(dma_calls_a_waiting_client),
		T(printing_strobes_and_interrupts),
		T(debug_ports),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
