/* SPDX-License-Identifier: MIT */
/*
 * pcap files: a header, then a record for each frame: seconds, microseconds, bytes kept, bytes there
 * were, the bytes. Times are the host's.
 *
 * Document: draft-ietf-opsawg-pcap (PCAP Capture File Format), 4 and 5.
 */
#include "net/pcap.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/text.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <unistd.h>

enum {
	MAGIC_LEN = 24,
	RECORD_LEN = 16,
	LINKTYPE_ETHERNET = 1,
	VERSION_MAJOR = 2,
	VERSION_MINOR = 4,
};
#define MAGIC UINT32_C(0xA1B2C3D4) /* microseconds, this byte order */

struct pcap_dump {
	struct net_filter filter;
	int fd;
	unsigned maxlen;
	enum pcap_frames frames;
	char *id, *path;
	uint8_t record[RECORD_LEN + NET_FRAME_MAX];
};

static void write_frame(struct net_filter *filter, bool sent, const struct iovec *iov, int count,
			size_t len)
{
	struct pcap_dump *d = container_of(filter, struct pcap_dump, filter);
	size_t keep = len < d->maxlen ? len : d->maxlen;
	struct timeval now;
	if (d->fd < 0 || keep > NET_FRAME_MAX ||
	    (d->frames != PCAP_ALL && sent != (d->frames == PCAP_SENT)))
		return;
	gettimeofday(&now, NULL);
	store_le32(d->record, (uint32_t)now.tv_sec);
	store_le32(d->record + 4, (uint32_t)now.tv_usec);
	store_le32(d->record + 8, (uint32_t)keep);
	store_le32(d->record + 12, (uint32_t)len);
	net_iov_copy(d->record + RECORD_LEN, keep, iov, count, 0);
	int r = write_full(d->fd, d->record, RECORD_LEN + keep);
	if (r < 0) {
		warn("cannot write '%s': %s; no more frames are kept", d->path, strerror(-r));
		close(d->fd);
		d->fd = -1;
	}
}

static void describe(struct net_filter *filter, struct strbuf *out)
{
	static const char *const queues[] = {
		[PCAP_ALL] = "all", [PCAP_RECEIVED] = "rx", [PCAP_SENT] = "tx"};
	struct pcap_dump *d = container_of(filter, struct pcap_dump, filter);
	strbuf_printf(out, "type=filter-dump,file=%s,maxlen=%u,status=on,netdev=%s,queue=%s",
		      d->path, d->maxlen, net_port_id(filter->port), queues[d->frames]);
}

struct pcap_dump *pcap_dump_new(struct net_port *port, const char *id, const char *path,
				unsigned maxlen, enum pcap_frames frames, struct error *err)
{
	uint8_t header[MAGIC_LEN] = {0};
	struct pcap_dump *d = xcalloc(1, sizeof(*d));
	d->maxlen = maxlen;
	d->frames = frames;
	d->filter.frame = write_frame;
	d->filter.describe = describe;
	d->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (d->fd < 0) {
		error_errno(err, errno, "cannot write '%s'", path);
		goto fail;
	}
	store_le32(header, MAGIC);
	store_le16(header + 4, VERSION_MAJOR);
	store_le16(header + 6, VERSION_MINOR);
	store_le32(header + 16, maxlen);
	store_le32(header + 20, LINKTYPE_ETHERNET);
	int r = write_full(d->fd, header, sizeof(header));
	if (r < 0) {
		error_errno(err, -r, "cannot write '%s'", path);
		goto fail;
	}
	net_filter_attach(&d->filter, port);
	d->id = xstrdup(id);
	d->filter.id = d->id;
	d->path = xstrdup(path);
	return d;
fail:
	if (d->fd >= 0)
		close(d->fd);
	free(d);
	return NULL;
}

void pcap_dump_free(struct pcap_dump *d)
{
	if (!d)
		return;
	net_filter_detach(&d->filter);
	if (d->fd >= 0)
		close(d->fd);
	free(d->id);
	free(d->path);
	free(d);
}
