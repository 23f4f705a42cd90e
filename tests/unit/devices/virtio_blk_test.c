/* SPDX-License-Identifier: MIT */
/* The virtio transport and its disk, driven as a guest's drivers do. */
#include "devices/virtio_blk.h"
#include "virtio_rig.h"
#include <string.h>

enum { DISK = 1 << 20, HEADER = DRV_DATA, STATUS = DRV_DATA + 0x100, BUFFER = DRV_DATA + 0x1000 };
enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_ZEROES = 13 };

struct fixture {
	struct rig *r;
	struct drv d;
	char *path;
	struct drive *drive;
	struct virtio_blk *blk;
};

static struct fixture *start_with(bool modern, uint64_t features, struct virtio_pci_config pci)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct error err = ERROR_INIT;

	f->r = rig_new(true);
	drv_init(&f->d, f->r);
	f->path = rig_image(DISK);
	f->drive = rig_drive(f->r, DRIVE_DISK, f->path, IMAGE_WRITABLE);
	struct virtio_blk_config config = {.drive = f->drive,
					   .queues = 2,
					   .queue_size = 64,
					   .logical_block = 512,
					   .physical_block = 4096,
					   .write_cache = true};
	pci.name = "disk";
	pci.devfn = -1;
	pci.vectors = 3;
	f->blk = virtio_blk_new(&f->r->env, f->r->pci, &pci, &config, &err);
	assert_non_null(f->blk);
	struct virtio *v = container_of(virtio_blk_pci(f->blk), struct virtio, pci);
	drv_start(&f->d, v, modern, features, 2);
	return f;
}

static struct fixture *start(bool modern, uint64_t features)
{
	return start_with(modern, features, (struct virtio_pci_config){0});
}

static void stop(struct fixture *f)
{
	virtio_blk_free(f->blk);
	drive_free(f->drive);
	unlink(f->path);
	free(f->path);
	rig_free(f->r);
	free(f);
}

static void header(struct fixture *f, uint64_t at, uint32_t type, uint64_t sector)
{
	uint8_t h[16] = {0};
	store_le32(h, type);
	store_le64(h + 8, sector);
	put(&f->d, at, h, sizeof(h));
}

/* One request of three pieces, waited for; its status. */
static uint8_t request(struct fixture *f, uint32_t type, uint64_t sector, uint32_t len,
		       bool to_guest)
{
	struct piece p[] = {{HEADER, 16, false}, {BUFFER, len, to_guest}, {STATUS, 1, true}};
	uint8_t status = 0xEE;

	header(f, HEADER, type, sector);
	put(&f->d, STATUS, &status, 1);
	if (len)
		drv_add(&f->d, 0, p, 3);
	else
		drv_add(&f->d, 0, (struct piece[]){p[0], p[2]}, 2);
	drv_kick(&f->d, 0);
	drv_wait(&f->d, 0, 1, NULL, NULL);
	get(&f->d, STATUS, &status, 1);
	return status;
}

static void reads_and_writes(bool modern, uint64_t features)
{
	struct fixture *f = start(modern, features);
	uint8_t sector[512], back[512];

	assert_int_equal(request(f, T_IN, 3, 512, true), 0);
	get(&f->d, BUFFER, sector, sizeof(sector));
	assert_true(rig_is_sector(sector, 3));
	memset(sector, 0x5A, sizeof(sector));
	put(&f->d, BUFFER, sector, sizeof(sector));
	assert_int_equal(request(f, T_OUT, 7, 512, false), 0);
	rig_image_read(f->path, back, sizeof(back), 7 * 512);
	assert_memory_equal(back, sector, sizeof(back));
	assert_int_equal(request(f, T_FLUSH, 0, 0, false), 0);
	/* The interrupt: asked for, acknowledged by reading it. */
	assert_int_equal(drv_isr(&f->d) & 1, 1);
	assert_int_equal(drv_isr(&f->d), 0);
	stop(f);
}

static void legacy_reads_and_writes(void **state)
{
	reads_and_writes(false, 0);
}

static void modern_reads_and_writes(void **state)
{
	reads_and_writes(true, 0);
}

static void event_index_reads_and_writes(void **state)
{
	reads_and_writes(true, VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC);
}

static void cards_have_the_identities_of_their_interfaces(void **state)
{
	struct fixture *f = start(true, 0);
	assert_int_equal(config_in(f->r, f->d.devfn, 0, 4), 0x10011AF4);
	assert_int_equal(config_in(f->r, f->d.devfn, 8, 1), 0);
	assert_int_equal(config_in(f->r, f->d.devfn, 0x2C, 4), 0x00021AF4);
	stop(f);
	f = start_with(true, 0, (struct virtio_pci_config){.disable_legacy = true});
	assert_int_equal(config_in(f->r, f->d.devfn, 0, 4), 0x10421AF4);
	assert_int_equal(config_in(f->r, f->d.devfn, 8, 1), 1);
	assert_int_equal(config_in(f->r, f->d.devfn, 0x10, 4), 0);
	stop(f);
}

static void configuration_tells_size_and_geometry(void **state)
{
	for (int modern = 0; modern < 2; modern++) {
		struct fixture *f = start(modern, 1 << 11);
		assert_int_equal(drv_config(&f->d, 0) | drv_config(&f->d, 1) << 8, DISK / 512);
		assert_int_equal(drv_config(&f->d, 12), 62); /* seg_max */
		assert_int_equal(drv_config(&f->d, 24), 3);  /* 4096 = 512 << 3 */
		assert_int_equal(drv_config(&f->d, 34), 2);  /* queues */
		assert_int_equal(drv_config(&f->d, 32), 1); /* write cache, which is the driver's */
		drv_set_config(&f->d, 32, 0);
		assert_int_equal(drv_config(&f->d, 32), 0);
		drv_set_config(&f->d, 0, 99);
		assert_int_equal(drv_config(&f->d, 0) | drv_config(&f->d, 1) << 8, DISK / 512);
		stop(f);
	}
}

static void configuration_space_window_reaches_the_registers(void **state)
{
	struct fixture *f = start(true, 0);
	unsigned cap = config_in(f->r, f->d.devfn, 0x34, 1);
	while (cap && !(config_in(f->r, f->d.devfn, cap, 1) == 9 &&
			config_in(f->r, f->d.devfn, cap + 3, 1) == 5))
		cap = config_in(f->r, f->d.devfn, cap + 1, 1);
	assert_true(cap);
	config_out(f->r, f->d.devfn, cap + 4, 1, 4);
	config_out(f->r, f->d.devfn, cap + 8, 4, 20);
	config_out(f->r, f->d.devfn, cap + 12, 4, 1);
	assert_int_equal(config_in(f->r, f->d.devfn, cap + 16, 1), 15);
	config_out(f->r, f->d.devfn, cap + 16, 1, 0);
	assert_int_equal(drv_status(&f->d), 0);
	/* Nothing is behind the end of the BAR. */
	config_out(f->r, f->d.devfn, cap + 8, 4, 0xFFFFFFFC);
	config_out(f->r, f->d.devfn, cap + 12, 4, 4);
	config_out(f->r, f->d.devfn, cap + 16, 4, 1);
	stop(f);
}

static void other_requests_and_refusals(void **state)
{
	struct fixture *f = start(true, ~UINT64_C(0));
	uint8_t range[16] = {0}, data[1024];

	assert_int_equal(request(f, T_GET_ID, 0, 20, true), 0);
	get(&f->d, BUFFER, data, 20);
	assert_memory_equal(data, "test\0", 5);
	store_le64(range, 16);
	store_le32(range + 8, 2);
	put(&f->d, BUFFER, range, sizeof(range));
	assert_int_equal(request(f, T_ZEROES, 0, 16, false), 0);
	rig_image_read(f->path, data, sizeof(data), 16 * 512);
	for (unsigned i = 0; i < sizeof(data); i++)
		assert_int_equal(data[i], 0);
	assert_int_equal(request(f, T_DISCARD, 0, 16, false), 0);
	store_le64(range, DISK / 512 - 1); /* the second sector is behind the end */
	put(&f->d, BUFFER, range, sizeof(range));
	assert_int_equal(request(f, T_DISCARD, 0, 16, false), 1);
	assert_int_equal(request(f, 77, 0, 512, true), 2);
	assert_int_equal(request(f, T_IN, DISK / 512, 512, true), 1);
	assert_int_equal(request(f, T_IN, UINT64_MAX, 512, true), 1);
	assert_int_equal(request(f, T_IN, 0, 100, true), 1); /* no whole sector */
	assert_int_equal(request(f, T_OUT, DISK / 512 - 1, 1024, false), 1);
	assert_int_equal(request(f, T_IN, 1, 512, true), 0); /* and it goes on */
	stop(f);
}

/* Header, data and status cut anywhere, and through an indirect table. */
static void chains_may_be_cut_anywhere(void **state)
{
	struct fixture *f = start(true, VIRTIO_F_INDIRECT_DESC);
	uint8_t data[1025];
	struct piece p[] = {{HEADER, 3, false},
			    {HEADER + 3, 13, false},
			    {BUFFER, 1, true},
			    {BUFFER + 1, 510, true},
			    {BUFFER + 511, 514, true}};
	header(f, HEADER, T_IN, 9);
	drv_add_indirect(&f->d, 0, DRV_DATA + 0x800, p, 5);
	drv_kick(&f->d, 0);
	uint32_t len;
	drv_wait(&f->d, 0, 1, NULL, &len);
	assert_int_equal(len, 1025);
	get(&f->d, BUFFER, data, sizeof(data));
	assert_true(rig_is_sector(data, 9) && rig_is_sector(data + 512, 10));
	assert_int_equal(data[1024], 0);
	/* A write whose data stands in the same piece as its header. */
	uint8_t whole[16 + 512] = {0};
	store_le32(whole, T_OUT);
	store_le64(whole + 8, 20);
	memset(whole + 16, 0xC3, 512);
	put(&f->d, BUFFER, whole, sizeof(whole));
	drv_add(&f->d, 0, (struct piece[]){{BUFFER, sizeof(whole), false}, {STATUS, 1, true}}, 2);
	drv_kick(&f->d, 0);
	drv_wait(&f->d, 0, 1, NULL, NULL);
	rig_image_read(f->path, data, 512, 20 * 512);
	assert_memory_equal(data, whole + 16, 512);
	stop(f);
}

/* Many at once, neighbours among them, on both queues. */
static void many_requests_at_once(void **state)
{
	struct fixture *f = start(true, 0);
	enum { COUNT = 20 };
	uint8_t sector[512];

	for (unsigned n = 0; n < COUNT; n++) {
		/* 0 to 9 follow each other on the disk, the others do not. */
		uint64_t at = n < 10 ? 100 + n : 500 - 2 * n;
		header(f, HEADER + 16 * n, n % 5 == 4 ? T_IN : T_OUT, at);
		memset(sector, (int)n + 1, sizeof(sector));
		put(&f->d, BUFFER + 512 * n, sector, sizeof(sector));
		struct piece p[] = {{HEADER + 16 * n, 16, false},
				    {BUFFER + 512 * n, 512, n % 5 == 4},
				    {STATUS + 0x200 + n, 1, true}};
		drv_add(&f->d, n / 10, p, 3);
	}
	drv_kick(&f->d, 0);
	drv_kick(&f->d, 1);
	drv_wait(&f->d, 0, 10, NULL, NULL);
	drv_wait(&f->d, 1, 10, NULL, NULL);
	for (unsigned n = 0; n < COUNT; n++) {
		uint64_t at = n < 10 ? 100 + n : 500 - 2 * n;
		uint8_t status, want[512];
		get(&f->d, STATUS + 0x200 + n, &status, 1);
		assert_int_equal(status, 0);
		if (n % 5 == 4) {
			get(&f->d, BUFFER + 512 * n, sector, sizeof(sector));
			assert_true(rig_is_sector(sector, at));
			continue;
		}
		memset(want, (int)n + 1, sizeof(want));
		rig_image_read(f->path, sector, sizeof(sector), at * 512);
		assert_memory_equal(sector, want, sizeof(want));
	}
	stop(f);
}

/* The software CPU must know of every byte, or it would run code that is no longer there. */
static void the_engine_is_told_what_was_written(void **state)
{
	struct fixture *f = start(true, 0);
	struct piece p[] = {{HEADER, 16, false},
			    {BUFFER, 100, true},
			    {BUFFER + 0x2000, 412, true},
			    {STATUS, 1, true}};

	header(f, HEADER, T_IN, 9);
	put(&f->d, STATUS, (uint8_t[]){0xEE}, 1);
	drv_add(&f->d, 0, p, 4);
	struct drv_writes *w = drv_watch(&f->d);
	drv_kick(&f->d, 0);
	drv_wait(&f->d, 0, 1, NULL, NULL);
	/* All of the sector but for its zeroes, the status, the used ring. */
	assert_in_range(drv_check_writes(w, 2), 500, 530);
	stop(f);
}

static void reset_with_requests_in_flight_leaves_memory_alone(void **state)
{
	for (int modern = 0; modern < 2; modern++) {
		struct fixture *f = start(modern, 0);
		for (unsigned n = 0; n < 16; n++) {
			header(f, HEADER + 16 * n, T_IN, n);
			struct piece p[] = {{HEADER + 16 * n, 16, false},
					    {BUFFER + 512 * n, 512, true},
					    {STATUS + 0x200 + n, 1, true}};
			drv_add(&f->d, 0, p, 3);
		}
		drv_kick(&f->d, 0);
		loop_unlock(f->r->env.loop);
		loop_run_once(f->r->env.loop, 0);
		loop_lock(f->r->env.loop);
		drv_set_status(&f->d, 0);
		assert_int_equal(drv_status(&f->d), 0);
		uint8_t zero[16 * 512 + 16] = {0}, now[sizeof(zero)];
		put(&f->d, BUFFER, zero, sizeof(zero));
		put16(&f->d, f->d.q[0].used + 2, 0);
		drv_idle(&f->d);
		get(&f->d, BUFFER, now, sizeof(now));
		assert_memory_equal(now, zero, sizeof(now));
		assert_int_equal(get16(&f->d, f->d.q[0].used + 2), 0);
		/* It can be started again. */
		drv_start(&f->d, f->d.v, modern, 0, 2);
		assert_int_equal(request(f, T_IN, 1, 512, true), 0);
		stop(f);
	}
}

static void one_queue_can_be_reset_alone(void **state)
{
	struct fixture *f = start(true, VIRTIO_F_RING_RESET);
	assert_int_equal(request(f, T_IN, 1, 512, true), 0);
	common_set(&f->d, 22, 2, 0);
	common_set(&f->d, 58, 2, 1);
	assert_int_equal(common(&f->d, 58, 2), 0);
	assert_int_equal(common(&f->d, 28, 2), 0);
	assert_int_equal(drv_status(&f->d), 15);
	drv_queue_setup(&f->d, 0);
	assert_int_equal(request(f, T_IN, 2, 512, true), 0);
	stop(f);
}

/* What a hostile driver may put into a ring. */
static void loop(struct fixture *f)
{
	drv_desc(&f->d, f->d.q[0].desc, HEADER, 16, 1, 1);
	drv_desc(&f->d, f->d.q[0].desc + 16, BUFFER, 512, 1, 0);
	drv_offer(&f->d, 0, 0);
}

static void outside_ram(struct fixture *f)
{
	drv_add(&f->d, 0,
		(struct piece[]){
			{HEADER, 16, false}, {RIG_RAM - 100, 512, true}, {STATUS, 1, true}},
		3);
}

static void end_of_address_space(struct fixture *f)
{
	drv_add(&f->d, 0,
		(struct piece[]){
			{HEADER, 16, false}, {UINT64_MAX - 10, 512, true}, {STATUS, 1, true}},
		3);
}

static void head_outside_table(struct fixture *f)
{
	drv_offer(&f->d, 0, 0xFFFF);
}

static void next_outside_table(struct fixture *f)
{
	drv_desc(&f->d, f->d.q[0].desc, HEADER, 16, 1, 64);
	drv_offer(&f->d, 0, 0);
}

/* Buffers of no length, which no limit of memory ends. */
static void loop_of_nothing(struct fixture *f)
{
	drv_desc(&f->d, f->d.q[0].desc, HEADER, 0, 1, 1);
	drv_desc(&f->d, f->d.q[0].desc + 16, BUFFER, 0, 1, 0);
	drv_offer(&f->d, 0, 0);
}

/* A flush in two descriptors at `table`, which would be served. */
static void good_request(struct fixture *f, uint64_t table)
{
	header(f, HEADER, T_FLUSH, 0);
	drv_desc(&f->d, table, HEADER, 16, 1, 1);
	drv_desc(&f->d, table + 16, STATUS, 1, 2, 0);
}

/* All entries of the ring are good, but there are more than it has. */
static void index_jumps(struct fixture *f)
{
	good_request(f, f->d.q[0].desc);
	put16(&f->d, f->d.q[0].avail + 2, 65);
}

static void indirect_in_indirect(struct fixture *f)
{
	good_request(f, DRV_DATA + 0x900);
	drv_desc(&f->d, DRV_DATA + 0x800, DRV_DATA + 0x900, 32, 4, 0);
	drv_desc(&f->d, f->d.q[0].desc, DRV_DATA + 0x800, 16, 4, 0);
	drv_offer(&f->d, 0, 0);
}

static void indirect_of_odd_length(struct fixture *f)
{
	drv_desc(&f->d, f->d.q[0].desc, DRV_DATA + 0x800, 17, 4, 0);
	drv_offer(&f->d, 0, 0);
}

static void indirect_of_absurd_length(struct fixture *f)
{
	drv_desc(&f->d, f->d.q[0].desc, DRV_DATA + 0x800, 0xFFFFFFF0, 4, 0);
	drv_offer(&f->d, 0, 0);
}

static void readable_behind_writable(struct fixture *f)
{
	drv_add(&f->d, 0, (struct piece[]){{STATUS, 1, true}, {HEADER, 16, false}}, 2);
}

static void no_header(struct fixture *f)
{
	drv_add(&f->d, 0, (struct piece[]){{HEADER, 15, false}, {STATUS, 1, true}}, 2);
}

static void no_status(struct fixture *f)
{
	header(f, HEADER, T_FLUSH, 0);
	drv_add(&f->d, 0, (struct piece[]){{HEADER, 16, false}}, 1);
}

static void hostile_rings_break_the_device_until_reset(void **state)
{
	static void (*const evil[])(struct fixture * f) = {
		loop,
		loop_of_nothing,
		outside_ram,
		end_of_address_space,
		head_outside_table,
		next_outside_table,
		index_jumps,
		indirect_in_indirect,
		indirect_of_odd_length,
		indirect_of_absurd_length,
		readable_behind_writable,
		no_header,
		no_status,
	};
	for (unsigned n = 0; n < ARRAY_SIZE(evil); n++) {
		struct fixture *f = start(true, VIRTIO_F_INDIRECT_DESC);
		evil[n](f);
		drv_kick(&f->d, 0);
		drv_idle(&f->d);
		assert_int_equal(drv_status(&f->d), 15 | 64);
		assert_int_equal(drv_returned(&f->d, 0), 0);
		assert_int_equal(drv_isr(&f->d) & 2, 2);
		drv_start(&f->d, f->d.v, true, 0, 2);
		assert_int_equal(request(f, T_IN, 1, 512, true), 0);
		stop(f);
	}
}

static void rings_outside_ram_are_refused(void **state)
{
	struct fixture *f = start(true, 0);
	drv_set_status(&f->d, 0);
	drv_set_status(&f->d, 3);
	common_set(&f->d, 8, 4, 1);
	common_set(&f->d, 12, 4, 1);
	drv_set_status(&f->d, 11);
	common_set(&f->d, 22, 2, 0);
	common_set(&f->d, 32, 4, RIG_RAM - 16);
	common_set(&f->d, 28, 2, 1);
	assert_int_equal(common(&f->d, 28, 2), 0);
	assert_int_equal(drv_status(&f->d) & 64, 64);
	stop(f);
}

static void version_1_must_be_chosen_by_modern_drivers(void **state)
{
	struct fixture *f = start(true, 0);
	drv_set_status(&f->d, 0);
	drv_set_status(&f->d, 11);
	assert_int_equal(drv_status(&f->d), 3);
	stop(f);
}

static void messages_instead_of_interrupts(void **state)
{
	for (int modern = 0; modern < 2; modern++) {
		struct fixture *f = start(modern, 0);
		drv_use_msix(&f->d, 2);
		assert_int_equal(request(f, T_IN, 1, 512, true), 0);
		assert_int_equal(f->d.messages, 1);
		assert_int_equal(f->d.last_message, 0x41);
		assert_int_equal(drv_isr(&f->d), 0);
		/* A masked vector is pending, and sent when it is unmasked. */
		mem_mmio_write(f->r->env.mem, DRV_MSIX + 16 + 12, 4, 1);
		assert_int_equal(request(f, T_IN, 1, 512, true), 0);
		assert_int_equal(f->d.messages, 1);
		assert_int_equal(mem_mmio_read(f->r->env.mem, DRV_MSIX + 0x800, 4), 2);
		mem_mmio_write(f->r->env.mem, DRV_MSIX + 16 + 12, 4, 0);
		assert_int_equal(f->d.messages, 2);
		assert_int_equal(mem_mmio_read(f->r->env.mem, DRV_MSIX + 0x800, 4), 0);
		/* A vector that there is not reads back as none. */
		if (modern) {
			common_set(&f->d, 26, 2, 3);
			assert_int_equal(common(&f->d, 26, 2), 0xFFFF);
		}
		stop(f);
	}
}

static void driver_can_hold_interrupts_back(void **state)
{
	struct fixture *f = start(true, 0);
	drv_use_msix(&f->d, 2);
	put16(&f->d, f->d.q[0].avail, 1); /* NO_INTERRUPT */
	request(f, T_IN, 1, 512, true);
	assert_int_equal(f->d.messages, 0);
	stop(f);

	f = start(true, VIRTIO_F_EVENT_IDX);
	drv_use_msix(&f->d, 2);
	/* used_event: only when the third one is back */
	put16(&f->d, f->d.q[0].avail + 4 + 2 * 64, 2);
	request(f, T_IN, 1, 512, true);
	unsigned first = f->d.messages; /* one is allowed: nothing was signalled before */
	request(f, T_IN, 1, 512, true);
	assert_int_equal(f->d.messages, first);
	request(f, T_IN, 1, 512, true);
	assert_int_equal(f->d.messages, first + 1);
	/* avail_event says that a notification is wanted for the next one */
	assert_int_equal(get16(&f->d, f->d.q[0].used + 4 + 8 * 64), 3);
	stop(f);
}

static void nothing_is_served_without_bus_mastering_or_time(void **state)
{
	struct fixture *f = start(true, 0);
	header(f, HEADER, T_IN, 1);
	struct piece p[] = {{HEADER, 16, false}, {BUFFER, 512, true}, {STATUS, 1, true}};
	config_out(f->r, f->d.devfn, 4, 2, 3);
	drv_add(&f->d, 0, p, 3);
	drv_kick(&f->d, 0);
	drv_idle(&f->d);
	assert_int_equal(drv_returned(&f->d, 0), 0);
	config_out(f->r, f->d.devfn, 4, 2, 7);
	drv_wait(&f->d, 0, 1, NULL, NULL);

	clock_stop(f->r->env.clock);
	drv_add(&f->d, 0, p, 3);
	drv_kick(&f->d, 0);
	drv_idle(&f->d);
	assert_int_equal(drv_returned(&f->d, 0), 0);
	clock_start(f->r->env.clock);
	drv_wait(&f->d, 0, 1, NULL, NULL);
	stop(f);
}

static void state_is_restored(void **state)
{
	struct fixture *f = start(true, VIRTIO_F_EVENT_IDX);
	struct strbuf image = STRBUF_INIT;
	assert_int_equal(request(f, T_IN, 1, 512, true), 0);
	state_save(f->r->env.states, &image);
	state_reset_all(f->r->env.states);
	assert_int_equal(f->d.v->status, 0);
	assert_int_equal(state_load(f->r->env.states, image.data, image.len, NULL), 0);
	assert_int_equal(request(f, T_IN, 2, 512, true), 0);
	uint8_t sector[512];
	get(&f->d, BUFFER, sector, sizeof(sector));
	assert_true(rig_is_sector(sector, 2));
	strbuf_free(&image);
	stop(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(legacy_reads_and_writes),
		cmocka_unit_test(modern_reads_and_writes),
		cmocka_unit_test(event_index_reads_and_writes),
		cmocka_unit_test(cards_have_the_identities_of_their_interfaces),
		cmocka_unit_test(configuration_tells_size_and_geometry),
		cmocka_unit_test(configuration_space_window_reaches_the_registers),
		cmocka_unit_test(other_requests_and_refusals),
		cmocka_unit_test(chains_may_be_cut_anywhere),
		cmocka_unit_test(many_requests_at_once),
		cmocka_unit_test(the_engine_is_told_what_was_written),
		cmocka_unit_test(reset_with_requests_in_flight_leaves_memory_alone),
		cmocka_unit_test(one_queue_can_be_reset_alone),
		cmocka_unit_test(hostile_rings_break_the_device_until_reset),
		cmocka_unit_test(rings_outside_ram_are_refused),
		cmocka_unit_test(version_1_must_be_chosen_by_modern_drivers),
		cmocka_unit_test(messages_instead_of_interrupts),
		cmocka_unit_test(driver_can_hold_interrupts_back),
		cmocka_unit_test(nothing_is_served_without_bus_mastering_or_time),
		cmocka_unit_test(state_is_restored),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
