/* SPDX-License-Identifier: MIT */
/* What QMP's query-* commands answer, as JSON objects in QEMU's schema (query.h). */
#include "vmm/query.h"
#include "core/chardev.h"
#include "lib/strbuf.h"
#include "net/net.h"
#include "vmm/backends.h"
#include "vmm/drive_options.h"
#include "vmm/machine.h"
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Clients of QMP decide by this number what they may use; it is the version of QEMU whose protocol
 * we follow. The package string says who really answers. */
enum { QMP_MAJOR = 7, QMP_MINOR = 2, QMP_MICRO = 0 };

static void add_string(struct json_object *o, const char *key, const char *value)
{
	json_object_object_add(o, key, json_object_new_string(value));
}

static void add_bool(struct json_object *o, const char *key, bool value)
{
	json_object_object_add(o, key, json_object_new_boolean(value));
}

static void add_int(struct json_object *o, const char *key, int64_t value)
{
	json_object_object_add(o, key, json_object_new_int64(value));
}

struct json_object *query_version(void)
{
	struct json_object *version = json_object_new_object(), *qemu = json_object_new_object();
	add_int(qemu, "micro", QMP_MICRO);
	add_int(qemu, "minor", QMP_MINOR);
	add_int(qemu, "major", QMP_MAJOR);
	json_object_object_add(version, "qemu", qemu);
	add_string(version, "package", "minivm-" MINIVM_VERSION);
	return version;
}

struct json_object *query_status(struct machine *m)
{
	struct json_object *status = json_object_new_object();
	add_string(status, "status", run_state_name(m->state));
	add_bool(status, "singlestep", false);
	add_bool(status, "running", machine_running(m));
	return status;
}

struct json_object *query_name(struct machine *m)
{
	struct json_object *name = json_object_new_object();
	if (m->options->name)
		add_string(name, "name", m->options->name);
	return name;
}

struct json_object *query_uuid(struct machine *m)
{
	struct json_object *uuid = json_object_new_object();
	add_string(uuid, "UUID",
		   m->options->uuid ? m->options->uuid : "00000000-0000-0000-0000-000000000000");
	return uuid;
}

struct json_object *query_jit(struct machine *m)
{
	if (!m->engine->ops->describe_jit)
		return NULL;
	struct strbuf text = STRBUF_INIT;
	struct json_object *o = json_object_new_object();
	m->engine->ops->describe_jit(m->engine, &text);
	add_string(o, "human-readable-text", strbuf_str(&text));
	strbuf_free(&text);
	return o;
}

struct json_object *query_kvm(struct machine *m)
{
	struct json_object *kvm = json_object_new_object();
	add_bool(kvm, "enabled", !strcmp(m->engine->ops->name, "kvm"));
	add_bool(kvm, "present", access("/dev/kvm", F_OK) == 0);
	return kvm;
}

/* As QEMU: the limits always, bursts and their length only where there are some. */
static void add_limits(struct json_object *o, struct drive *drive)
{
	struct throttle_limits limits;
	drive_get_limits(drive, &limits);
	for (int i = 0; i < THROTTLE_NAMES; i++) {
		const char *name = throttle_names[i].qmp;
		const struct throttle_limit *l = &limits.bucket[throttle_names[i].bucket];
		char key[32];
		add_int(o, name, (int64_t)l->avg);
		if (!l->max)
			continue;
		snprintf(key, sizeof(key), "%s_max", name);
		add_int(o, key, (int64_t)l->max);
		snprintf(key, sizeof(key), "%s_max_length", name);
		add_int(o, key, l->length ? (int64_t)l->length : 1);
	}
	if (limits.iops_size)
		add_int(o, "iops_size", (int64_t)limits.iops_size);
	if (drive_throttle_group(drive))
		add_string(o, "group", drive_throttle_group(drive));
}

static struct json_object *describe_drive(struct drive *drive)
{
	struct json_object *o = json_object_new_object();
	bool removable = drive_get_kind(drive) != DRIVE_DISK;
	add_string(o, "device", drive_id(drive));
	add_string(o, "type", "unknown");
	add_bool(o, "removable", removable);
	add_bool(o, "locked", drive_locked(drive));
	if (drive_inserted(drive)) {
		struct json_object *inserted = json_object_new_object(),
				   *image = json_object_new_object();
		add_string(inserted, "file", drive_file(drive));
		add_string(inserted, "drv", drive_format(drive));
		add_bool(inserted, "ro", !drive_writable(drive));
		add_bool(inserted, "encrypted", false);
		if (drive_backing_file(drive))
			add_string(inserted, "backing_file", drive_backing_file(drive));
		unsigned flags = drive_image_flags(drive);
		struct json_object *cache = json_object_new_object();
		add_bool(cache, "writeback", !(flags & IMAGE_WRITETHROUGH));
		add_bool(cache, "direct", flags & IMAGE_DIRECT);
		add_bool(cache, "no-flush", flags & IMAGE_NO_FLUSH);
		json_object_object_add(inserted, "cache", cache);
		add_limits(inserted, drive);
		add_string(inserted, "detect_zeroes",
			   flags & IMAGE_DETECT_UNMAP    ? "unmap"
			   : flags & IMAGE_DETECT_ZEROES ? "on"
							 : "off");
		add_string(image, "filename", drive_file(drive));
		add_string(image, "format", drive_format(drive));
		add_int(image, "virtual-size", (int64_t)drive_size(drive));
		json_object_object_add(inserted, "image", image);
		json_object_object_add(o, "inserted", inserted);
	}
	if (drive_get_kind(drive) != DRIVE_FLOPPY)
		add_string(o, "io-status", drive_io_status(drive));
	if (drive_has_tray(drive))
		add_bool(o, "tray_open", drive_tray_open(drive));
	return o;
}

struct json_object *query_block(struct machine *m)
{
	struct json_object *list = json_object_new_array();
	for (unsigned n = 0; n < DRIVE_PLACES; n++)
		if (drives_at(&m->drives, n))
			json_object_array_add(list, describe_drive(drives_at(&m->drives, n)));
	return list;
}

struct json_object *query_chardev(struct machine *m)
{
	struct json_object *list = json_object_new_array();
	struct list *it;
	list_for_each(it, &m->chardevs)
	{
		struct named_chardev *entry = list_entry(it, struct named_chardev, link);
		struct json_object *o = json_object_new_object();
		add_bool(o, "frontend-open", true);
		add_string(o, "label", entry->id);
		add_string(o, "filename", chardev_describe(entry->chr));
		json_object_array_add(list, o);
	}
	return list;
}

/* ---- Receive filters ---- */

static const char *rx_state(enum net_rx_state state)
{
	return state == NET_RX_NONE ? "none" : state == NET_RX_ALL ? "all" : "normal";
}

static struct json_object *mac_text(const uint8_t *mac)
{
	char text[3 * NET_MAC_LEN];
	snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2],
		 mac[3], mac[4], mac[5]);
	return json_object_new_string(text);
}

static void add_macs(struct json_object *o, const char *key, const uint8_t (*table)[NET_MAC_LEN],
		     unsigned count)
{
	struct json_object *list = json_object_new_array();
	for (unsigned n = 0; n < count; n++)
		json_object_array_add(list, mac_text(table[n]));
	json_object_object_add(o, key, list);
}

static struct json_object *one_rx_filter(struct net_port *port)
{
	enum { VLANS = 4096 };
	struct net_rx_filter f;
	struct json_object *o = json_object_new_object(), *vlans = json_object_new_array();
	net_port_ops(port)->rx_filter(net_port_opaque(port), &f);
	add_string(o, "name", net_port_id(port));
	add_bool(o, "promiscuous", f.promiscuous);
	add_string(o, "multicast", rx_state(f.multicast));
	add_string(o, "unicast", rx_state(f.unicast));
	add_string(o, "vlan", rx_state(f.vlan));
	add_bool(o, "broadcast-allowed", f.broadcast_allowed);
	add_bool(o, "multicast-overflow", f.multicast_overflow);
	add_bool(o, "unicast-overflow", f.unicast_overflow);
	json_object_object_add(o, "main-mac", mac_text(f.mac));
	add_macs(o, "unicast-table", f.unicast_table, f.unicasts);
	add_macs(o, "multicast-table", f.multicast_table, f.multicasts);
	for (unsigned n = 0; f.vlan == NET_RX_NORMAL && n < VLANS; n++)
		if (f.vlans[n / 64] >> n % 64 & 1)
			json_object_array_add(vlans, json_object_new_int((int)n));
	json_object_object_add(o, "vlan-table", vlans);
	return o;
}

static void add_rx_filter(void *opaque, struct net_port *port)
{
	if (net_port_ops(port)->rx_filter)
		json_object_array_add(opaque, one_rx_filter(port));
}

struct json_object *query_rx_filter(struct machine *m, const char *name, struct error *err)
{
	struct net_port *port = name ? net_find_nic(m->net, name) : NULL;
	if (name && !port) {
		error_set(err, ENODEV, "there is no network card '%s'", name);
		return NULL;
	}
	if (name && !net_port_ops(port)->rx_filter) {
		error_set(err, ENOTSUP, "net client(%s) doesn't support rx-filter querying", name);
		return NULL;
	}
	struct json_object *list = json_object_new_array();
	if (port)
		add_rx_filter(list, port);
	else
		net_for_each(m->net, add_rx_filter, list);
	return list;
}

struct json_object *query_cpus(struct machine *m)
{
	struct json_object *list = json_object_new_array();
	for (unsigned n = 0; n < m->options->cpus; n++) {
		struct json_object *o = json_object_new_object();
		add_int(o, "cpu-index", n);
		add_int(o, "thread-id", getpid());
		add_string(o, "target", "i386");
		json_object_array_add(list, o);
	}
	return list;
}
