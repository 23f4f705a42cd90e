/* SPDX-License-Identifier: MIT */
/*
 * Objects that are sources of random numbers (rng.h): a file, getrandom(2), or an entropy gathering
 * daemon. A card with a source gets a descriptor of its own, or, of a daemon, the source itself,
 * which then is in use.
 */
#include "vmm/rng.h"
#include "core/chardev.h"
#include "devices/virtio_rng.h"
#include "lib/bytes.h"
#include "lib/optstr.h"
#include "lib/text.h"
#include "vmm/backends.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct rng {
	int fd; /* -1: getrandom() */
};

static void *create_random(void *context, const char *id, struct opts *opts, struct error *err)
{
	const char *file = opts_get(opts, "filename");
	struct rng *rng = xcalloc(1, sizeof(*rng));
	if (!file)
		file = "/dev/urandom";
	rng->fd = open(file, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (rng->fd < 0) {
		error_errno(err, errno, "cannot open '%s'", file);
		free(rng);
		return NULL;
	}
	return rng;
}

static void *create_builtin(void *context, const char *id, struct opts *opts, struct error *err)
{
	struct rng *rng = xcalloc(1, sizeof(*rng));
	rng->fd = -1;
	return rng;
}

/* Cards have descriptors of their own. */
static void free_rng(void *object)
{
	struct rng *rng = object;
	if (rng->fd >= 0)
		close(rng->fd);
	free(rng);
}

const struct object_type rng_random_type = {
	.name = "rng-random",
	.help = "filename=/dev/urandom",
	.phase = OBJECT_FIRST,
	.create = create_random,
	.free = free_rng,
};

const struct object_type rng_builtin_type = {
	.name = "rng-builtin",
	.help = "(no properties: the host kernel's random numbers)",
	.phase = OBJECT_FIRST,
	.create = create_builtin,
	.free = free_rng,
};

/*
 * An entropy gathering daemon at the other end of a character device. Its protocol (EGD 0.9,
 * "client-side interface"): byte 2 and a number ask for so many bytes, which come when there is
 * that much entropy. No more is asked for than the card wants now.
 */
enum { EGD_READ_BLOCKING = 2, EGD_MAX = 255 };

struct egd {
	struct virtio_rng_source source;
	struct chardev *chr; /* NULL once the object is gone */
	uint8_t buffer[EGD_MAX];
	size_t have;
	size_t asked; /* bytes that are still to come */
	void (*ready)(void *card);
	void *card; /* NULL: nobody uses it */
};

static size_t egd_read(void *opaque, uint8_t *buf, size_t len)
{
	struct egd *egd = opaque;
	size_t part = len < egd->have ? len : egd->have;
	memcpy(buf, egd->buffer, part);
	egd->have -= part;
	memmove(egd->buffer, egd->buffer + part, egd->have);
	if (part == 0 && len && egd->chr && !egd->asked && chardev_connected(egd->chr)) {
		uint8_t request[2] = {EGD_READ_BLOCKING, (uint8_t)(len < EGD_MAX ? len : EGD_MAX)};
		if (chardev_write(egd->chr, request, sizeof(request)) == sizeof(request))
			egd->asked = request[1];
	}
	return part;
}

static void egd_attach(void *opaque, void (*ready)(void *card), void *card)
{
	struct egd *egd = opaque;
	egd->ready = ready;
	egd->card = card;
	if (!card && !egd->chr)
		free(egd);
}

static size_t egd_can_receive(void *opaque)
{
	struct egd *egd = opaque;
	return egd->asked;
}

static void egd_receive(void *opaque, const uint8_t *buf, size_t len)
{
	struct egd *egd = opaque;
	memcpy(egd->buffer + egd->have, buf, len);
	egd->have += len;
	egd->asked -= len;
	if (egd->card)
		egd->ready(egd->card);
}

/* Who left owes nothing; who comes is asked again. */
static void egd_opened(void *opaque, bool open)
{
	struct egd *egd = opaque;
	egd->asked = 0;
	if (open && egd->card)
		egd->ready(egd->card);
}

static void *create_egd(void *context, const char *id, struct opts *opts, struct error *err)
{
	const char *name = opts_get(opts, "chardev");
	if (!name) {
		error_set(err, EINVAL, "it needs chardev=ID");
		return NULL;
	}
	struct chardev *chr = backend_take_named(context, name, err);
	if (!chr)
		return NULL;
	struct egd *egd = xcalloc(1, sizeof(*egd));
	egd->chr = chr;
	egd->source = (struct virtio_rng_source){egd_read, egd_attach, egd};
	struct chardev_frontend fe = {.can_receive = egd_can_receive,
				      .receive = egd_receive,
				      .opened = egd_opened,
				      .opaque = egd};
	chardev_attach(chr, &fe);
	return egd;
}

static int egd_may_delete(void *object, struct error *err)
{
	struct egd *egd = object;
	return egd->card ? error_set(err, EBUSY, "a card takes its random numbers from it") : 0;
}

static void free_egd(void *object)
{
	struct egd *egd = object;
	chardev_attach(egd->chr, NULL);
	egd->chr = NULL;
	/* At the machine's end the card goes last. */
	if (!egd->card)
		free(egd);
}

/* After the character devices. */
const struct object_type rng_egd_type = {
	.name = "rng-egd",
	.help = "chardev=ID: an entropy gathering daemon",
	.phase = OBJECT_LAST,
	.create = create_egd,
	.may_delete = egd_may_delete,
	.free = free_egd,
};

static int take_fd(void *object, void *opaque)
{
	const struct rng *rng = object;
	struct virtio_rng_config *config = opaque;
	config->fd = rng->fd < 0 ? -1 : fcntl(rng->fd, F_DUPFD_CLOEXEC, 0);
	return rng->fd >= 0 && config->fd < 0 ? -errno : 0;
}

static int take_egd(void *object, void *opaque)
{
	const struct egd *egd = object;
	struct virtio_rng_config *config = opaque;
	if (egd->card)
		return -EBUSY;
	config->source = &egd->source;
	return 0;
}

int rng_open(const char *id, struct virtio_rng_config *config, struct error *err)
{
	static const struct object_type *const others[] = {&rng_builtin_type, &rng_egd_type};
	int r = object_use(id, &rng_random_type, take_fd, config, err);
	for (size_t n = 0; r < 0 && n < ARRAY_SIZE(others); n++) {
		struct error other = ERROR_INIT;
		int got = object_use(id, others[n], others[n] == &rng_egd_type ? take_egd : take_fd,
				     config, &other);
		if (got == -EBUSY)
			return error_set(err, EBUSY, "another card uses the rng-egd '%s'", id);
		if (got == 0) {
			*err = ERROR_INIT;
			r = 0;
		}
	}
	return r;
}
