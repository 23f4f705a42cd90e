/* SPDX-License-Identifier: MIT */
/* The virtio transport over PCI by the letter of the specification: features, status, registers after
 * each kind of reset, interrupts, doorbells. The device behind it is the random number generator. */
#include "devices/virtio_rng.h"
#include "virtio_rig.h"
#include <string.h>
#include <sys/eventfd.h>

enum { BUFFER = DRV_DATA, SIZE = 8, NO_VECTOR = 0xFFFF, NEEDS_RESET = 64, BELLS = 4 };
enum { LEGACY_FEATURES = 0, LEGACY_DRIVER = 4, LEGACY_PAGE = 8, LEGACY_SIZE = 12 };
enum { LEGACY_SELECT = 14, LEGACY_STATUS = 18, LEGACY_VECTOR = 22 };
enum {
	DEVICE_SELECT = 0,
	DEVICE_FEATURE = 4,
	DRIVER_SELECT = 8,
	DRIVER_FEATURE = 12,
	CONFIG_VECTOR = 16,
	NUM_QUEUES = 18,
	STATUS = 20,
	QUEUE_SELECT = 22,
	QUEUE_SIZE = 24,
	QUEUE_VECTOR = 26,
	QUEUE_ENABLE = 28,
	NOTIFY_OFF = 30,
	QUEUE_DESC = 32,
	QUEUE_DRIVER = 40,
	QUEUE_DEVICE = 48,
	QUEUE_RESET = 58,
};

struct bell {
	struct doorbell bell;
	int fd;
};

struct fixture {
	struct rig *r;
	struct drv d;
	struct virtio_rng *rng;
	struct doorbell_ops ops;
	struct bell bell[BELLS]; /* that are on; fd 0: none */
	unsigned refused;
	bool refuse;
};

static int set_bell(void *opaque, const struct doorbell *bell, int fd, bool on)
{
	struct fixture *f = opaque;

	if (on && f->refuse) {
		f->refused++;
		return -ENOTSUP;
	}
	for (unsigned n = 0; n < BELLS; n++) {
		struct bell *b = &f->bell[n];
		if (on && !b->fd) {
			*b = (struct bell){*bell, fd};
			return 0;
		}
		if (!on && b->fd == fd && !memcmp(&b->bell, bell, sizeof(*bell))) {
			b->fd = 0;
			return 0;
		}
	}
	fail_msg("%s of a doorbell that cannot be", on ? "set" : "removal");
	return -ENOENT;
}

static struct fixture *new_card(struct virtio_pci_config pci, bool bells)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct error err = ERROR_INIT;
	struct virtio_rng_config config = {.fd = -1};

	f->r = rig_new(true);
	drv_init(&f->d, f->r);
	f->ops = (struct doorbell_ops){.set = set_bell, .opaque = f};
	if (bells)
		f->r->env.doorbells = &f->ops;
	pci.name = "rng";
	pci.devfn = -1;
	pci.vectors = 2;
	f->rng = virtio_rng_new(&f->r->env, f->r->pci, &pci, &config, &err);
	assert_non_null(f->rng);
	return f;
}

static void drive(struct fixture *f, bool modern, uint64_t features)
{
	struct virtio *v = container_of(virtio_rng_pci(f->rng), struct virtio, pci);
	drv_start(&f->d, v, modern, features, 1);
}

static struct fixture *start(bool modern)
{
	struct fixture *f = new_card((struct virtio_pci_config){0}, false);
	drive(f, modern, VIRTIO_F_RING_RESET);
	return f;
}

static void stop(struct fixture *f)
{
	virtio_rng_free(f->rng);
	for (unsigned n = 0; n < BELLS; n++)
		assert_int_equal(f->bell[n].fd, 0);
	rig_free(f->r);
	free(f);
}

static uint32_t reg(struct fixture *f, unsigned offset, unsigned size)
{
	return (uint32_t)common(&f->d, offset, size);
}

static void set(struct fixture *f, unsigned offset, unsigned size, uint32_t value)
{
	common_set(&f->d, offset, size, value);
}

static bool works(struct fixture *f)
{
	uint32_t len;

	drv_add(&f->d, 0, &(struct piece){BUFFER, 16, true}, 1);
	drv_kick(&f->d, 0);
	drv_wait(&f->d, 0, 1, NULL, &len);
	return len == 16;
}

/* ---- features ---- */

static uint32_t device_features(struct fixture *f, uint32_t select)
{
	set(f, DEVICE_SELECT, 4, select);
	assert_int_equal(reg(f, DEVICE_SELECT, 4), select);
	return reg(f, DEVICE_FEATURE, 4);
}

static void features_are_offered_in_words(void **state)
{
	struct fixture *f = start(true);
	const uint64_t rings = VIRTIO_F_ANY_LAYOUT | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX;

	assert_int_equal(device_features(f, 0), rings);
	assert_int_equal(device_features(f, 1), (VIRTIO_F_VERSION_1 | VIRTIO_F_RING_RESET) >> 32);
	assert_int_equal(device_features(f, 2), 0);
	assert_int_equal(device_features(f, UINT32_MAX), 0);
	/* The legacy interface has the first word only. */
	assert_int_equal(in(f->r, DRV_IO + LEGACY_FEATURES, 4), rings);
	stop(f);
	f = new_card((struct virtio_pci_config){.disable_modern = true,
						.no_indirect = true,
						.no_event_idx = true},
		     false);
	drive(f, false, 0);
	assert_int_equal(in(f->r, DRV_IO + LEGACY_FEATURES, 4), VIRTIO_F_ANY_LAYOUT);
	assert_true(works(f));
	stop(f);
}

static void choose(struct fixture *f, uint32_t select, uint32_t features)
{
	set(f, DRIVER_SELECT, 4, select);
	set(f, DRIVER_FEATURE, 4, features);
}

static void features_are_chosen_once(void **state)
{
	struct fixture *f = start(true);

	set(f, STATUS, 1, 0);
	set(f, STATUS, 1, 3);
	choose(f, 2, UINT32_MAX); /* there is no such word */
	choose(f, UINT32_MAX, UINT32_MAX);
	choose(f, 1, 1);
	set(f, DRIVER_SELECT, 4, 0);
	assert_int_equal(reg(f, DRIVER_FEATURE, 4), 0);
	choose(f, 0, UINT32_MAX); /* what is not offered cannot be had */
	set(f, DRIVER_SELECT, 4, 0);
	assert_int_equal(reg(f, DRIVER_FEATURE, 4), device_features(f, 0));
	set(f, STATUS, 1, 11);
	assert_int_equal(reg(f, STATUS, 1), 11);
	choose(f, 0, 0); /* too late */
	assert_int_equal(reg(f, DRIVER_FEATURE, 4), device_features(f, 0));
	set(f, STATUS, 1, 0);
	assert_int_equal(reg(f, DRIVER_FEATURE, 4), 0);
	stop(f);
}

static void legacy_drivers_do_without_features_ok(void **state)
{
	struct fixture *f = new_card((struct virtio_pci_config){0}, false);

	drive(f, false, VIRTIO_F_EVENT_IDX);
	assert_int_equal(in(f->r, DRV_IO + LEGACY_DRIVER, 4), VIRTIO_F_EVENT_IDX);
	assert_true(works(f));
	out(f->r, DRV_IO + LEGACY_DRIVER, 4, 0); /* the driver runs */
	assert_int_equal(in(f->r, DRV_IO + LEGACY_DRIVER, 4), VIRTIO_F_EVENT_IDX);
	stop(f);
}

/* ---- registers ---- */

static void queues_can_be_made_smaller_until_enabled(void **state)
{
	struct fixture *f = start(true);

	set(f, STATUS, 1, 0);
	set(f, QUEUE_SELECT, 2, 0);
	assert_int_equal(reg(f, NUM_QUEUES, 2), 1);
	assert_int_equal(reg(f, QUEUE_SIZE, 2), SIZE);
	assert_int_equal(reg(f, NOTIFY_OFF, 2), 0);
	static const uint16_t bad[] = {0, 3, 5, SIZE * 2, 0xFFFF};
	for (unsigned n = 0; n < ARRAY_SIZE(bad); n++) {
		set(f, QUEUE_SIZE, 2, bad[n]);
		assert_int_equal(reg(f, QUEUE_SIZE, 2), SIZE);
	}
	set(f, QUEUE_SIZE, 2, 2);
	assert_int_equal(reg(f, QUEUE_SIZE, 2), 2);
	/* A queue that is not there. */
	for (unsigned n = 1; n < 0x10000; n += 0x5555) {
		set(f, QUEUE_SELECT, 2, n);
		assert_int_equal(reg(f, QUEUE_SIZE, 2), 0);
		assert_int_equal(reg(f, QUEUE_VECTOR, 2), NO_VECTOR);
		set(f, QUEUE_ENABLE, 2, 1);
		set(f, QUEUE_RESET, 2, 1);
		set(f, QUEUE_DESC, 4, 0x1000);
		assert_int_equal(reg(f, QUEUE_ENABLE, 2), 0);
	}
	/* Only a 1 enables, and then nothing can be changed. */
	drive(f, true, 0);
	uint32_t desc = reg(f, QUEUE_DESC, 4);
	set(f, QUEUE_ENABLE, 2, 0);
	assert_int_equal(reg(f, QUEUE_ENABLE, 2), 1);
	set(f, QUEUE_DESC, 4, 0x2000);
	set(f, QUEUE_DRIVER, 4, 0x2000);
	set(f, QUEUE_DEVICE, 4, 0x2000);
	set(f, QUEUE_SIZE, 2, 2);
	assert_int_equal(reg(f, QUEUE_DESC, 4), desc);
	assert_int_equal(reg(f, QUEUE_SIZE, 2), SIZE);
	assert_true(works(f));
	stop(f);
}

static void assert_power_on(struct fixture *f)
{
	assert_int_equal(reg(f, STATUS, 1), 0);
	assert_int_equal(reg(f, CONFIG_VECTOR, 2), NO_VECTOR);
	assert_int_equal(reg(f, QUEUE_SELECT, 2), 0);
	assert_int_equal(reg(f, DEVICE_SELECT, 4), 0);
	assert_int_equal(reg(f, DRIVER_SELECT, 4), 0);
	assert_int_equal(reg(f, DRIVER_FEATURE, 4), 0);
	assert_int_equal(reg(f, QUEUE_SIZE, 2), SIZE);
	assert_int_equal(reg(f, QUEUE_VECTOR, 2), NO_VECTOR);
	assert_int_equal(reg(f, QUEUE_ENABLE, 2), 0);
	for (unsigned n = QUEUE_DESC; n < QUEUE_DEVICE + 8; n += 4)
		assert_int_equal(reg(f, n, 4), 0);
	assert_int_equal(drv_isr(&f->d), 0);
}

/* Everything is set to something, and goes back. */
static void every_way_to_reset_leaves_power_on_values(void **state)
{
	enum { BY_STATUS, BY_LEGACY_STATUS, BY_LEGACY_PAGE, BY_SYSTEM, KINDS };

	for (int kind = 0; kind < KINDS; kind++) {
		struct fixture *f = start(true);
		set(f, STATUS, 1, 0);
		set(f, QUEUE_SELECT, 2, 0);
		set(f, QUEUE_SIZE, 2, 4);
		drive(f, true, VIRTIO_F_RING_RESET);
		drv_use_msix(&f->d, 1);
		assert_int_equal(reg(f, QUEUE_VECTOR, 2), 1);
		set(f, DEVICE_SELECT, 4, 1);
		set(f, DRIVER_SELECT, 4, 1);
		drv_add(&f->d, 0, &(struct piece){BUFFER, 16, true}, 1);
		drv_kick(&f->d, 0); /* not served before the reset */
		if (kind == BY_STATUS)
			set(f, STATUS, 1, 0);
		else if (kind == BY_LEGACY_STATUS)
			out(f->r, DRV_IO + LEGACY_STATUS, 1, 0);
		else if (kind == BY_LEGACY_PAGE)
			out(f->r, DRV_IO + LEGACY_PAGE, 4, 0);
		else
			state_reset_all(f->r->env.states);
		drv_idle(&f->d);
		if (kind == BY_SYSTEM) { /* which took the BARs away */
			config_out(f->r, f->d.devfn, 0x10, 4, DRV_IO);
			config_out(f->r, f->d.devfn, 0x20, 4, DRV_MODERN);
			config_out(f->r, f->d.devfn, 0x04, 2, 7);
		}
		assert_power_on(f);
		assert_int_equal(get16(&f->d, f->d.q[0].used + 2), 0);
		assert_int_equal(f->d.messages, 0);
		drive(f, true, 0);
		assert_true(works(f));
		stop(f);
	}
}

static void a_reset_queue_is_as_new(void **state)
{
	struct fixture *f = start(true);

	assert_true(works(f));
	drv_use_msix(&f->d, 1);
	set(f, QUEUE_RESET, 2, 0); /* nothing */
	assert_int_equal(reg(f, QUEUE_ENABLE, 2), 1);
	drv_add(&f->d, 0, &(struct piece){BUFFER, 16, true}, 1);
	drv_kick(&f->d, 0);
	set(f, QUEUE_RESET, 2, 1);
	drv_idle(&f->d);
	assert_int_equal(drv_returned(&f->d, 0), 0);
	assert_int_equal(reg(f, QUEUE_RESET, 2), 0);
	assert_int_equal(reg(f, QUEUE_ENABLE, 2), 0);
	assert_int_equal(reg(f, QUEUE_VECTOR, 2), NO_VECTOR);
	assert_int_equal(reg(f, QUEUE_DESC, 4), 0);
	/* The card as a whole goes on; the queue may come back elsewhere and smaller. */
	assert_int_equal(reg(f, STATUS, 1), 15);
	assert_int_equal(reg(f, CONFIG_VECTOR, 2), 0);
	set(f, QUEUE_SIZE, 2, 4);
	drv_queue_setup(&f->d, 0);
	assert_int_equal(f->d.q[0].size, 4);
	for (unsigned n = 0; n < 9; n++)
		assert_true(works(f));
	stop(f);
	/* Without the feature the register does nothing. */
	f = new_card((struct virtio_pci_config){0}, false);
	drive(f, true, 0);
	set(f, QUEUE_RESET, 2, 1);
	assert_int_equal(reg(f, QUEUE_ENABLE, 2), 1);
	assert_true(works(f));
	stop(f);
}

/* What was put into the ring before the driver was ready is found. */
static void nothing_is_served_before_driver_ok(void **state)
{
	for (int modern = 0; modern < 2; modern++) {
		struct fixture *f = start(modern);
		drv_set_status(&f->d, 0);
		drv_set_status(&f->d, 3);
		if (modern) {
			choose(f, 1, 1);
			drv_set_status(&f->d, 11);
		}
		drv_queue_setup(&f->d, 0);
		drv_add(&f->d, 0, &(struct piece){BUFFER, 16, true}, 1);
		drv_kick(&f->d, 0);
		drv_idle(&f->d);
		assert_int_equal(drv_returned(&f->d, 0), 0);
		drv_set_status(&f->d, modern ? 15 : 7);
		drv_wait(&f->d, 0, 1, NULL, NULL);
		stop(f);
	}
}

static void rings_must_be_aligned_and_in_ram(void **state)
{
	static const struct {
		uint32_t desc_high, desc, avail, used;
	} bad[] = {
		{0, DRV_RINGS + 8, DRV_RINGS + 0x8000, DRV_RINGS + 0xA000},
		{0, DRV_RINGS, DRV_RINGS + 0x8001, DRV_RINGS + 0xA000},
		{0, DRV_RINGS, DRV_RINGS + 0x8000, DRV_RINGS + 0xA002},
		{1, DRV_RINGS, DRV_RINGS + 0x8000, DRV_RINGS + 0xA000},
		{UINT32_MAX, 0xFFFFFFF0, DRV_RINGS + 0x8000, DRV_RINGS + 0xA000},
		{0, RIG_RAM - 16 * SIZE + 16, DRV_RINGS + 0x8000, DRV_RINGS + 0xA000},
		{0, DRV_RINGS, RIG_RAM - 2 * SIZE - 4, DRV_RINGS + 0xA000},
		{0, DRV_RINGS, DRV_RINGS + 0x8000, RIG_RAM - 8 * SIZE - 4},
		{0, DRV_MODERN, DRV_RINGS + 0x8000, DRV_RINGS + 0xA000},
		{0, DRV_RINGS, DRV_RINGS + 0x8000, DRV_MODERN + 0x1000},
	};

	for (unsigned n = 0; n < ARRAY_SIZE(bad); n++) {
		struct fixture *f = start(true);
		set(f, STATUS, 1, 0);
		set(f, STATUS, 1, 3);
		choose(f, 1, 1);
		set(f, STATUS, 1, 11);
		set(f, QUEUE_DESC, 4, bad[n].desc);
		set(f, QUEUE_DESC + 4, 4, bad[n].desc_high);
		set(f, QUEUE_DRIVER, 4, bad[n].avail);
		set(f, QUEUE_DEVICE, 4, bad[n].used);
		set(f, QUEUE_ENABLE, 2, 1);
		assert_int_equal(reg(f, QUEUE_ENABLE, 2), 0);
		assert_int_equal(reg(f, STATUS, 1), 11 | NEEDS_RESET);
		set(f, STATUS, 1, 15); /* which cannot take it away */
		assert_int_equal(reg(f, STATUS, 1), 15 | NEEDS_RESET);
		drv_kick(&f->d, 0);
		drv_idle(&f->d);
		drive(f, true, 0);
		assert_true(works(f));
		stop(f);
	}
	/* The last bytes of RAM will do. */
	struct fixture *f = start(true);
	set(f, STATUS, 1, 0);
	set(f, STATUS, 1, 3);
	choose(f, 1, 1);
	set(f, STATUS, 1, 11);
	set(f, QUEUE_DESC, 4, RIG_RAM - 16 * SIZE);
	set(f, QUEUE_DRIVER, 4, RIG_RAM - 2 * SIZE - 6);
	set(f, QUEUE_DEVICE, 4, RIG_RAM - 8 * SIZE - 8);
	set(f, QUEUE_ENABLE, 2, 1);
	assert_int_equal(reg(f, QUEUE_ENABLE, 2), 1);
	stop(f);
}

/* ---- interrupts ---- */

static void the_pin_goes_up_and_down(void **state)
{
	struct fixture *f = start(true);
	const struct pci_device *pci = virtio_rng_pci(f->rng);

	assert_false(pci->irq_level);
	assert_true(works(f));
	assert_true(pci->irq_level);
	assert_int_equal(common(&f->d, 0x1001, 1), 0); /* not the register */
	assert_true(pci->irq_level);
	assert_int_equal(common(&f->d, 0x1000, 1), 1);
	assert_false(pci->irq_level);
	assert_true(works(f));
	set(f, STATUS, 1, 0);
	assert_false(pci->irq_level);
	stop(f);
}

/* A pin that was up when the driver turned to messages does not stay up. */
static void messages_take_the_pin_down(void **state)
{
	struct fixture *f = start(true);
	const struct pci_device *pci = virtio_rng_pci(f->rng);

	assert_true(works(f));
	assert_true(pci->irq_level);
	drv_use_msix(&f->d, 1);
	assert_false(pci->irq_level);
	assert_true(works(f));
	assert_false(pci->irq_level);
	assert_int_equal(f->d.messages, 1);
	assert_int_equal(f->d.last_message, 0x41);
	stop(f);
}

static void vectors_that_are_not_there_read_back_as_none(void **state)
{
	struct fixture *f = start(true);

	set(f, CONFIG_VECTOR, 2, 1);
	assert_int_equal(reg(f, CONFIG_VECTOR, 2), 1);
	set(f, CONFIG_VECTOR, 2, 2);
	assert_int_equal(reg(f, CONFIG_VECTOR, 2), NO_VECTOR);
	drv_use_msix(&f->d, 1);
	out(f->r, DRV_IO + LEGACY_SELECT, 2, 0);
	out(f->r, DRV_IO + LEGACY_VECTOR, 2, 7);
	assert_int_equal(in(f->r, DRV_IO + LEGACY_VECTOR, 2), NO_VECTOR);
	assert_true(works(f)); /* and says nothing to anybody */
	assert_int_equal(f->d.messages, 0);
	assert_int_equal(drv_isr(&f->d), 0);
	stop(f);
}

/* ---- doorbells ---- */

static unsigned bells(const struct fixture *f)
{
	unsigned count = 0;
	for (unsigned n = 0; n < BELLS; n++)
		count += f->bell[n].fd != 0;
	return count;
}

static const struct bell *find_bell(const struct fixture *f, bool port)
{
	for (unsigned n = 0; n < BELLS; n++)
		if (f->bell[n].fd && f->bell[n].bell.port == port)
			return &f->bell[n];
	return NULL;
}

static void doorbells_follow_the_registers(void **state)
{
	struct fixture *f = new_card((struct virtio_pci_config){0}, true);

	drive(f, true, VIRTIO_F_RING_RESET);
	assert_int_equal(bells(f), 2);
	const struct bell *port = find_bell(f, true), *memory = find_bell(f, false);
	assert_int_equal(port->bell.address, DRV_IO + 16);
	assert_int_equal(port->bell.size, 2);
	assert_true(port->bell.match);
	assert_int_equal(port->bell.value, 0);
	assert_int_equal(memory->bell.address, DRV_MODERN + 0x3000);
	assert_false(memory->bell.match);
	/* Rung by the engine. */
	drv_add(&f->d, 0, &(struct piece){BUFFER, 16, true}, 1);
	assert_int_equal(eventfd_write(memory->fd, 1), 0);
	drv_wait(&f->d, 0, 1, NULL, NULL);
	/* Where the BAR goes, and while there is none. */
	config_out(f->r, f->d.devfn, 0x20, 4, DRV_MODERN + 0x100000);
	assert_int_equal(find_bell(f, false)->bell.address, DRV_MODERN + 0x103000);
	assert_int_equal(bells(f), 2);
	config_out(f->r, f->d.devfn, 0x04, 2, 5); /* no memory */
	assert_int_equal(bells(f), 1);
	config_out(f->r, f->d.devfn, 0x04, 2, 7);
	config_out(f->r, f->d.devfn, 0x20, 4, DRV_MODERN);
	assert_int_equal(bells(f), 2);
	/* Not for a queue that is off, nor a card that is reset. */
	set(f, QUEUE_SELECT, 2, 0);
	set(f, QUEUE_RESET, 2, 1);
	assert_int_equal(bells(f), 0);
	drv_queue_setup(&f->d, 0);
	assert_int_equal(bells(f), 2);
	assert_true(works(f));
	set(f, STATUS, 1, 0);
	assert_int_equal(bells(f), 0);
	drive(f, false, 0);
	assert_int_equal(bells(f), 2);
	state_reset_all(f->r->env.states);
	drive(f, true, 0);
	assert_int_equal(bells(f), 2);
	assert_true(works(f));
	stop(f); /* takes them away */
}

static void engines_may_refuse_doorbells(void **state)
{
	struct fixture *f = new_card((struct virtio_pci_config){0}, true);

	f->refuse = true;
	drive(f, true, 0);
	assert_int_equal(bells(f), 0);
	unsigned refused = f->refused;
	assert_int_equal(refused, 2);
	assert_true(works(f)); /* through the registers */
	config_out(f->r, f->d.devfn, 0x04, 2, 7);
	assert_int_equal(f->refused, refused); /* and it is not asked each time */
	stop(f);
	f = new_card((struct virtio_pci_config){.no_doorbells = true}, true);
	drive(f, true, 0);
	assert_int_equal(bells(f), 0);
	assert_true(works(f));
	stop(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(features_are_offered_in_words),
		cmocka_unit_test(features_are_chosen_once),
		cmocka_unit_test(legacy_drivers_do_without_features_ok),
		cmocka_unit_test(queues_can_be_made_smaller_until_enabled),
		cmocka_unit_test(every_way_to_reset_leaves_power_on_values),
		cmocka_unit_test(a_reset_queue_is_as_new),
		cmocka_unit_test(nothing_is_served_before_driver_ok),
		cmocka_unit_test(rings_must_be_aligned_and_in_ram),
		cmocka_unit_test(the_pin_goes_up_and_down),
		cmocka_unit_test(messages_take_the_pin_down),
		cmocka_unit_test(vectors_that_are_not_there_read_back_as_none),
		cmocka_unit_test(doorbells_follow_the_registers),
		cmocka_unit_test(engines_may_refuse_doorbells),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
