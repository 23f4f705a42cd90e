/* SPDX-License-Identifier: MIT */
#include "vmm/rng.h"
#include "lib/optstr.h"
#include "lib/text.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
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

static int take(void *object, void *opaque)
{
	const struct rng *rng = object;
	int *fd = opaque;
	*fd = rng->fd < 0 ? -1 : fcntl(rng->fd, F_DUPFD_CLOEXEC, 0);
	return rng->fd >= 0 && *fd < 0 ? -errno : 0;
}

int rng_open(const char *id, int *fd, struct error *err)
{
	struct error builtin = ERROR_INIT;
	int r = object_use(id, &rng_random_type, take, fd, err);
	/* Of the other type? */
	if (r < 0 && object_use(id, &rng_builtin_type, take, fd, &builtin) == 0) {
		*err = ERROR_INIT;
		r = 0;
	}
	return r;
}
