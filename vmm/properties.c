/* SPDX-License-Identifier: MIT */
/*
 * Properties of -device (properties.h): the help texts, one a name, and a table of those that
 * QEMU's devices have and ours have not, with the values that ask for nothing special.
 */
#include "vmm/properties.h"
#include "lib/bytes.h"
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A key means the same with each driver that has it. */
static const struct {
	const char *key, *type, *text;
} known[] = {
	{"addr", "slot", "PCI slot in hexadecimal, 2 to 1f; without it a free one"},
	{"any_layout", "on|off", "messages may be laid out in any way"},
	{"bootindex", "number", "place in the boot order, 0 first"},
	{"bus", "name", "bus or card that it is on"},
	{"chardev", "id", "the -chardev behind it"},
	{"config-wce", "on|off", "the guest may switch the write cache"},
	{"csum", "on|off", "the guest may leave checksums to the card"},
	{"ctrl_guest_offloads", "on|off", "the guest may change its offloads while it runs"},
	{"ctrl_mac_addr", "on|off", "the guest may change the MAC address"},
	{"ctrl_rx", "on|off", "the guest may set receive modes"},
	{"ctrl_rx_extra", "on|off", "more receive modes"},
	{"ctrl_vlan", "on|off", "the guest may choose VLANs"},
	{"ctrl_vq", "on|off", "control queue"},
	{"cyls", "number", "cylinders of the disk"},
	{"disable-legacy", "on|off|auto", "no interface of before virtio 1.0"},
	{"disable-modern", "on|off", "no interface of virtio 1.0"},
	{"discard", "on|off", "the guest may discard blocks"},
	{"discard_granularity", "size", "what discards should be aligned to"},
	{"drive", "id", "the -drive behind it"},
	{"duplex", "half|full", "what the guest is told of the link"},
	{"event_idx", "on|off", "fewer notifications through event indices"},
	{"guest_announce", "on|off", "the guest can be asked to announce itself"},
	{"guest_csum", "on|off", "frames whose checksum the host leaves to the guest"},
	{"guest_ecn", "on|off", "large TCP frames with ECN to the guest"},
	{"guest_tso4", "on|off", "large TCP frames to the guest (IPv4)"},
	{"guest_tso6", "on|off", "large TCP frames to the guest (IPv6)"},
	{"heads", "number", "heads of the disk"},
	{"host_ecn", "on|off", "large TCP frames with ECN from the guest"},
	{"host_mtu", "bytes", "MTU that the guest is told"},
	{"host_tso4", "on|off", "large TCP frames from the guest (IPv4)"},
	{"host_tso6", "on|off", "large TCP frames from the guest (IPv6)"},
	{"id", "name", "its name in the monitor"},
	{"indirect_desc", "on|off", "descriptors in tables of their own"},
	{"iobase", "port", "first I/O port"},
	{"ioeventfd", "on|off", "notifications without leaving the kernel"},
	{"iosize", "number", "how many ports"},
	{"irq", "number", "interrupt line"},
	{"logical_block_size", "size", "block size, a power of two from 512"},
	{"mac", "address", "MAC address"},
	{"macaddr", "address", "MAC address"},
	{"max-bytes", "bytes", "at most so many in each period"},
	{"max-discard-sectors", "number", "at most so many sectors of 512 bytes a request"},
	{"max-write-zeroes-sectors", "number", "at most so many sectors of 512 bytes a request"},
	{"max_ports", "number", "ports that it has room for"},
	{"min_io_size", "size", "hint: smallest good request"},
	{"mq", "on|off", "as many queues as the backend has"},
	{"mrg_rxbuf", "on|off", "frames may fill several buffers"},
	{"multifunction", "off", "cards have one function"},
	{"name", "text", "how the guest finds the port"},
	{"netdev", "id", "the -netdev behind it"},
	{"nr", "number", "number of the port"},
	{"num-queues", "number", "queues; auto: one a CPU"},
	{"opt_io_size", "size", "hint: best request"},
	{"packed", "off", "rings are split ones"},
	{"period", "ms", "what max-bytes= counts in"},
	{"physical_block_size", "size", "hint: block size of the medium"},
	{"queue-size", "number", "entries of a queue, a power of two"},
	{"queue_reset", "on|off", "a queue can be reset alone"},
	{"request-merging", "on|off", "neighbouring requests become one"},
	{"rerror", "policy", "when reading fails: report|ignore|stop|auto"},
	{"rng", "id", "the -object that gives random numbers"},
	{"rombar", "0|1", "whether the guest sees the boot ROM"},
	{"romfile", "file", "boot ROM; empty: none"},
	{"romsize", "size", "of the boot ROM's BAR, a power of two"},
	{"rx_queue_size", "number", "entries of receive queues"},
	{"secs", "number", "sectors a track of the disk"},
	{"serial", "text", "serial number, up to 20 characters"},
	{"share-rw", "on|off", "others may write to the image, too"},
	{"speed", "Mbit/s", "what the guest is told of the link"},
	{"status", "on|off", "the guest sees whether the cable is plugged in"},
	{"tx_queue_size", "number", "entries of transmit queues"},
	{"unit", "0|1", "drive on the cable"},
	{"vectors", "number", "MSI-X vectors; 0: none"},
	{"werror", "policy", "when writing fails: report|ignore|stop|enospc|auto"},
	{"write-cache", "on|off|auto", "write cache at power-on"},
	{"write-zeroes", "on|off", "the guest may have blocks filled with zeros"},
};

#define MIGRATION "it is for moving running machines between versions, which cannot be done here"
#define PCIE      "the PC has a conventional PCI bus"

/* Where a property is not here: for drivers that begin so, the values that ask for nothing else
 * than what is there (separated by spaces), and why others cannot be had. */
static const struct {
	const char *driver, *key, *accepted, *why;
} absent[] = {
	{"", "acpi-index", "0", "the ACPI tables give cards no index"},
	{"", "failover_pair_id", "", "there is no failover"},
	{"ne2k_isa", "bootindex", "-1",
	 "the ISA card has no boot ROM; -option-rom FILE,bootindex=N adds one"},
	{"virtio-", "aer", "off", PCIE},
	{"virtio-", "ats", "off", PCIE},
	{"virtio-", "iommu_platform", "off", "there is no IOMMU"},
	{"virtio-", "page-per-vq", "off", "notification registers are 4 bytes apart"},
	{"virtio-", "modern-pio-notify", "off", "modern notifications are in memory space"},
	{"virtio-", "notify_on_empty", "off", "virtio 1 has no such feature; event_idx= does more"},
	{"virtio-", "migrate-extra", "on", MIGRATION},
	{"virtio-", "use-started", "on", MIGRATION},
	{"virtio-", "use-disabled-flag", "on", MIGRATION},
	{"virtio-", "virtio-pci-bus-master-bug-migration", "off", MIGRATION},
	{"virtio-net", "gso", "off", "host_tso4= and host_tso6= say it"},
	{"virtio-net", "guest_ufo", "off", "there is no UDP fragmentation offload"},
	{"virtio-net", "host_ufo", "off", "there is no UDP fragmentation offload"},
	{"virtio-net", "guest_rsc_ext", "off", "received segments are not joined"},
	{"virtio-net", "rsc_interval", "", "received segments are not joined"},
	{"virtio-net", "rss", "off", "there is no receive side scaling; mq=on gives queues"},
	{"virtio-net", "hash", "off", "there are no hash reports"},
	{"virtio-net", "failover", "off", "there is no failover"},
	{"virtio-net", "tx", "bh", "frames are sent at once (tx=bh)"},
	{"virtio-blk", "scsi", "off", "virtio 1 has no SCSI commands"},
	{"virtio-blk", "iothread", "", "requests are served by threads of their own anyway"},
	{"virtio-blk", "account-failed", "auto", "what the statistics count cannot be chosen"},
	{"virtio-blk", "account-invalid", "auto", "what the statistics count cannot be chosen"},
	{"virtio-blk", "backend_defaults", "auto off", "hints are not taken from the host's disk"},
	{"virtio-blk", "class", "", "the PCI class cannot be chosen"},
	{"virtio-blk", "lcyls", "", "the geometry is cyls=, heads= and secs="},
	{"virtio-blk", "lheads", "", "the geometry is cyls=, heads= and secs="},
	{"virtio-blk", "lsecs", "", "the geometry is cyls=, heads= and secs="},
	{"virtio-blk", "seg-max-adjust", "on", "requests have at most queue-size less 2 pieces"},
	{"virtio-blk", "report-discard-granularity", "on", "discard_granularity= is always told"},
	{"virtio-serial", "emergency-write", "off", "there is no emergency write"},
	{"virtio-serial", "class", "", "the PCI class cannot be chosen"},
};

bool properties_asked(const char *text, char *driver, size_t size)
{
	struct opts opts;
	bool asked = false;
	if (opts_parse(&opts, text, "driver", NULL) < 0)
		return false;
	for (size_t n = 0; n < opts.count; n++)
		asked = asked || (opts.item[n].bare && (!strcmp(opts.item[n].key, "help") ||
							!strcmp(opts.item[n].key, "?")));
	const char *name = opts_get(&opts, "driver");
	if (!name || strlen(name) >= size)
		asked = false;
	else
		strcpy(driver, name);
	opts_free(&opts);
	return asked;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

void properties_print(const char *driver, const char *const *keys, const char *const *more)
{
	const char *all[128];
	size_t count = 0;
	const char *const *lists[] = {keys, more};
	for (size_t l = 0; l < ARRAY_SIZE(lists); l++)
		for (size_t n = 0; lists[l] && lists[l][n] && count < ARRAY_SIZE(all); n++)
			if (strcmp(lists[l][n], "driver") != 0)
				all[count++] = lists[l][n];
	qsort(all, count, sizeof(*all), by_name);
	printf("%s options:\n", driver);
	for (size_t n = 0; n < count; n++) {
		const char *type = "value", *text = "";
		if (n && !strcmp(all[n], all[n - 1]))
			continue;
		for (size_t k = 0; k < ARRAY_SIZE(known); k++) {
			if (!strcmp(known[k].key, all[n])) {
				type = known[k].type;
				text = known[k].text;
			}
		}
		char left[64];
		snprintf(left, sizeof(left), "%s=<%s>", all[n], type);
		printf("  %-30s - %s\n", left, text);
	}
}

/* "yes" and "true" are "on", and so on. */
static const char *switch_word(const char *value)
{
	static const char *const words[][2] = {{"y", "on"},  {"yes", "on"}, {"true", "on"},
					       {"n", "off"}, {"no", "off"}, {"false", "off"}};
	for (size_t n = 0; n < ARRAY_SIZE(words); n++)
		if (!strcmp(value, words[n][0]))
			return words[n][1];
	return value;
}

static bool among(const char *words, const char *word)
{
	size_t len = strlen(word);
	for (const char *p = words; *p && len;) {
		size_t n = strcspn(p, " ");
		if (n == len && !strncmp(p, word, n))
			return true;
		p += n + (p[n] == ' ');
	}
	return false;
}

int properties_check_absent(struct opts *opts, const char *driver, struct error *err)
{
	for (size_t n = 0; n < opts->count; n++) {
		struct opt *item = &opts->item[n];
		for (size_t k = 0; !item->used && k < ARRAY_SIZE(absent); k++) {
			if (strncmp(driver, absent[k].driver, strlen(absent[k].driver)) != 0 ||
			    strcmp(item->key, absent[k].key) != 0)
				continue;
			if (!among(absent[k].accepted, switch_word(item->value)))
				return error_set(err, ENOTSUP, "%s=%s: %s", item->key, item->value,
						 absent[k].why);
			item->used = true;
		}
	}
	return 0;
}

int properties_bootindex(struct opts *opts, int *bootindex, struct error *err)
{
	const char *text = opts_get(opts, "bootindex");
	uint64_t n = 0;
	*bootindex = -1;
	if (!text || !strcmp(text, "-1"))
		return 0;
	int r = opts_get_u64(opts, "bootindex", &n, err);
	if (r < 0)
		return r;
	if (n > BOOTINDEX_MAX)
		return error_set(err, EINVAL, "bootindex must be 0 to %d", BOOTINDEX_MAX);
	*bootindex = (int)n;
	return 0;
}
