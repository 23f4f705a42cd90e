/* SPDX-License-Identifier: MIT */
#include "vmm/filters.h"
#include "lib/text.h"
#include "net/pcap.h"
#include "vmm/machine.h"
#include <errno.h>
#include <stdlib.h>

static void *create(void *context, const char *id, struct opts *opts, struct error *err)
{
	struct machine *m = context;
	const char *netdev = opts_get(opts, "netdev"), *file = opts_get(opts, "file");
	const char *status = opts_get(opts, "status");
	static const char *const queues[] = {
		[PCAP_ALL] = "all", [PCAP_RECEIVED] = "rx", [PCAP_SENT] = "tx", NULL};
	/* Where it stands among filters that let every frame pass makes no difference. */
	static const char *const positions[] = {"tail", "head", NULL};
	static const char *const inserts[] = {"behind", "before", NULL};
	int queue = PCAP_ALL, position = 0, insert = 0;
	uint64_t max = PCAP_MAXLEN;
	if (opts_get_size(opts, "maxlen", &max, err) < 0 ||
	    opts_get_enum(opts, "queue", queues, &queue, err) < 0 ||
	    opts_get_enum(opts, "position", positions, &position, err) < 0 ||
	    opts_get_enum(opts, "insert", inserts, &insert, err) < 0)
		return NULL;
	if (status && strcmp(status, "on"))
		error_set(err, ENOTSUP, "'status' must be on; leave the object out instead");
	else if (!netdev || !file)
		error_set(err, EINVAL, "it needs netdev=ID and file=FILE");
	else if (max < 1 || max > PCAP_MAXLEN_MAX)
		error_set(err, EINVAL, "'maxlen' must be 1 to %d bytes", PCAP_MAXLEN_MAX);
	if (err->code)
		return NULL;
	struct net_port *port = net_find_backend(m->net, netdev);
	if (!port) {
		error_set(err, ENOENT, "there is no -netdev with id=%s", netdev);
		return NULL;
	}
	return pcap_dump_new(port, id, file, (unsigned)max, (enum pcap_frames)queue, err);
}

static void destroy(void *object)
{
	pcap_dump_free(object);
}

const struct object_type filter_dump_type = {
	.name = "filter-dump",
	.help = "netdev=ID,file=FILE,maxlen=BYTES,queue=all|rx|tx: writes the frames to a pcap "
		"file",
	.phase = OBJECT_LAST,
	.create = create,
	.free = destroy,
};
