/* SPDX-License-Identifier: MIT */
/*
 * QMP server (QEMU docs/interop/qmp-spec): a greeting, capability negotiation, then commands
 *
 *   {"execute": NAME, "arguments": {...}, "id": ANY}  ->  {"return": VALUE, "id": ANY}
 *                                                     or  {"error": {"class": C, "desc": TEXT},
 * "id": ANY}
 *
 * and events in between. Commands run in the order received, each to its end, on the loop's thread.
 *
 * The peer is trusted as little as any input: its nesting and size are bounded, and every argument
 * is checked against the command's table of arguments (name, type, optional) before the command
 * runs.
 */
#include "vmm/qmp.h"
#include "core/chardev.h"
#include "core/input.h"
#include "lib/bytes.h"
#include "lib/list.h"
#include "lib/log.h"
#include "lib/object.h"
#include "lib/strbuf.h"
#include "lib/text.h"
#include "vmm/commands.h"
#include "vmm/drive_options.h"
#include "vmm/machine.h"
#include "vmm/monitor.h"
#include "vmm/nics.h"
#include "vmm/query.h"
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

enum {
	MAX_DEPTH = 64,
	MAX_MESSAGE = 1 << 20,
	MAX_BACKLOG = 64 << 10, /* replies not yet read when no more commands are taken */
	MAX_EVENT_BACKLOG = 1 << 20,
};

struct qmp {
	struct machine *m;
	struct chardev *chr;
	struct json_tokener *tokener;
	size_t message_bytes; /* of the message being parsed */
	bool negotiated, pretty;
	unsigned current_cpu; /* of human-monitor-command */
	struct machine_listener listener;
	struct qmp *next;
};

/* ---- Output ---- */

/* Length of the UTF-8 character at `p` (RFC 3629, 4), 0 if there is none. */
static size_t utf8_length(const uint8_t *p, size_t len)
{
	size_t need = p[0] < 0x80   ? 1
		      : p[0] < 0xC2 ? 0
		      : p[0] < 0xE0 ? 2
		      : p[0] < 0xF0 ? 3
		      : p[0] < 0xF5 ? 4
				    : 0;
	if (need > len)
		return 0;
	for (size_t n = 1; n < need; n++)
		if ((p[n] & 0xC0) != 0x80)
			return 0;
	if ((p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xED && p[1] > 0x9F) ||
	    (p[0] == 0xF0 && p[1] < 0x90) || (p[0] == 0xF4 && p[1] > 0x8F))
		return 0;
	return need;
}

/* JSON is UTF-8, file names are any bytes: what is not UTF-8 becomes U+FFFD. */
static void append_utf8(struct strbuf *out, const char *text, size_t len)
{
	const uint8_t *p = (const uint8_t *)text;
	while (len) {
		size_t good = 0, n;
		while (good < len && (n = utf8_length(p + good, len - good)) > 0)
			good += n;
		strbuf_append(out, p, good);
		p += good;
		len -= good;
		if (len) {
			strbuf_puts(out, "\xEF\xBF\xBD");
			p++;
			len--;
		}
	}
}

/* Sends and releases an object. */
static void send_object(struct qmp *q, struct json_object *object)
{
	int flags = q->pretty ? JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED
			      : JSON_C_TO_STRING_SPACED;
	flags |= JSON_C_TO_STRING_NOSLASHESCAPE;
	size_t len;
	const char *text = json_object_to_json_string_length(object, flags, &len);
	struct strbuf out = STRBUF_INIT;
	append_utf8(&out, text, len);
	strbuf_puts(&out, "\r\n");
	chardev_write_all(q->chr, out.data, out.len);
	strbuf_free(&out);
	json_object_put(object);
}

static void add_id(struct json_object *reply, struct json_object *id)
{
	if (id)
		json_object_object_add(reply, "id", json_object_get(id));
}

static void send_error(struct qmp *q, struct json_object *id, const char *class, const char *text)
{
	struct json_object *reply = json_object_new_object(), *error = json_object_new_object();
	json_object_object_add(error, "class", json_object_new_string(class));
	json_object_object_add(error, "desc", json_object_new_string(text));
	add_id(reply, id);
	json_object_object_add(reply, "error", error);
	send_object(q, reply);
}

static void send_greeting(struct qmp *q)
{
	struct json_object *greeting = json_object_new_object(), *body = json_object_new_object();
	json_object_object_add(body, "version", query_version());
	json_object_object_add(body, "capabilities", json_object_new_array());
	json_object_object_add(greeting, "QMP", body);
	send_object(q, greeting);
}

/* ---- Events ---- */

static struct json_object *describe_drive_error(const char *drive_id, const struct drive_error *e)
{
	struct json_object *data = json_object_new_object();
	const char *action = e->action == DRIVE_ERROR_STOP     ? "stop"
			     : e->action == DRIVE_ERROR_IGNORE ? "ignore"
							       : "report";
	json_object_object_add(data, "device", json_object_new_string(drive_id));
	json_object_object_add(data, "operation",
			       json_object_new_string(e->op == DRIVE_READ ? "read" : "write"));
	json_object_object_add(data, "action", json_object_new_string(action));
	json_object_object_add(data, "nospace", json_object_new_boolean(e->code == ENOSPC));
	json_object_object_add(data, "reason", json_object_new_string(strerror(e->code)));
	return data;
}

static void send_event(void *opaque, enum machine_event event, enum run_cause cause,
		       const char *drive_id, bool tray_open)
{
	static const char *const names[] = {
		[EVENT_SHUTDOWN] = "SHUTDOWN",
		[EVENT_RESET] = "RESET",
		[EVENT_STOP] = "STOP",
		[EVENT_RESUME] = "RESUME",
		[EVENT_POWERDOWN] = "POWERDOWN",
		[EVENT_TRAY_MOVED] = "DEVICE_TRAY_MOVED",
		[EVENT_BLOCK_IO_ERROR] = "BLOCK_IO_ERROR",
	};
	struct qmp *q = opaque;
	if (!q->negotiated || !chardev_connected(q->chr))
		return;
	/* A guest can make events without end; for a peer that does not read they are lost. */
	if (chardev_backlog(q->chr) > MAX_EVENT_BACKLOG)
		return;
	struct json_object *message = json_object_new_object(), *time = json_object_new_object();
	struct timeval now;
	gettimeofday(&now, NULL);
	json_object_object_add(time, "seconds", json_object_new_int64(now.tv_sec));
	json_object_object_add(time, "microseconds", json_object_new_int64(now.tv_usec));
	json_object_object_add(message, "timestamp", time);
	json_object_object_add(message, "event", json_object_new_string(names[event]));
	struct json_object *data = NULL;
	if (event == EVENT_SHUTDOWN || event == EVENT_RESET) {
		data = json_object_new_object();
		bool guest = cause == CAUSE_GUEST_RESET || cause == CAUSE_GUEST_SHUTDOWN;
		json_object_object_add(data, "guest", json_object_new_boolean(guest));
		json_object_object_add(data, "reason",
				       json_object_new_string(run_cause_name(cause)));
	} else if (event == EVENT_TRAY_MOVED) {
		data = json_object_new_object();
		json_object_object_add(data, "device", json_object_new_string(drive_id));
		json_object_object_add(data, "id", json_object_new_string(""));
		json_object_object_add(data, "tray-open", json_object_new_boolean(tray_open));
	} else if (event == EVENT_BLOCK_IO_ERROR) {
		data = describe_drive_error(drive_id, q->m->drive_error);
	}
	if (data)
		json_object_object_add(message, "data", data);
	send_object(q, message);
}

/* ---- Arguments ---- */

struct qmp_argument {
	const char *name;
	enum json_type type;
	bool optional;
};

/* The argument of that name, or NULL. Its type has been checked. */
static struct json_object *argument(struct json_object *args, const char *name)
{
	struct json_object *value = NULL;
	return args && json_object_object_get_ex(args, name, &value) ? value : NULL;
}

static const char *string_argument(struct json_object *args, const char *name)
{
	struct json_object *value = argument(args, name);
	return value ? json_object_get_string(value) : NULL;
}

static int64_t int_argument(struct json_object *args, const char *name, int64_t fallback)
{
	struct json_object *value = argument(args, name);
	return value ? json_object_get_int64(value) : fallback;
}

static bool bool_argument(struct json_object *args, const char *name)
{
	struct json_object *value = argument(args, name);
	return value && json_object_get_boolean(value);
}

static const char *type_name(enum json_type type)
{
	switch (type) {
	case json_type_int: return "integer";
	case json_type_string: return "string";
	case json_type_boolean: return "boolean";
	case json_type_array: return "array";
	default: return "object";
	}
}

/* In a command's table: it takes arguments of any name behind those before. */
#define ANY_ARGUMENT "*"

static int check_arguments(const struct qmp_argument *known, struct json_object *args,
			   struct error *err)
{
	for (const struct qmp_argument *a = known; a->name; a++) {
		struct json_object *value = argument(args, a->name);
		if (!value && !a->optional && strcmp(a->name, ANY_ARGUMENT))
			return error_set(err, EINVAL, "Parameter '%s' is missing", a->name);
		if (value && !json_object_is_type(value, a->type))
			return error_set(err, EINVAL,
					 "Invalid parameter type for '%s', expected: %s", a->name,
					 type_name(a->type));
	}
	if (!args)
		return 0;
	json_object_object_foreach(args, name, value)
	{
		const struct qmp_argument *a = known;
		(void)value;
		while (a->name && strcmp(a->name, name) && strcmp(a->name, ANY_ARGUMENT))
			a++;
		if (!a->name)
			return error_set(err, EINVAL, "Parameter '%s' is unexpected", name);
	}
	return 0;
}

/* ---- Commands: each returns the value for "return" (NULL: an empty object) or sets the error ----
 */

static struct json_object *do_capabilities(struct qmp *q, struct json_object *args,
					   struct error *err)
{
	struct json_object *enable = argument(args, "enable");
	if (enable && json_object_array_length(enable))
		error_set(err, EINVAL, "there are no capabilities to enable");
	else
		q->negotiated = true;
	return NULL;
}

static struct json_object *do_query_status(struct qmp *q, struct json_object *args,
					   struct error *err)
{
	return query_status(q->m);
}

static struct json_object *do_query_version(struct qmp *q, struct json_object *args,
					    struct error *err)
{
	return query_version();
}

static struct json_object *do_query_name(struct qmp *q, struct json_object *args, struct error *err)
{
	return query_name(q->m);
}

static struct json_object *do_query_uuid(struct qmp *q, struct json_object *args, struct error *err)
{
	return query_uuid(q->m);
}

static struct json_object *do_query_jit(struct qmp *q, struct json_object *args, struct error *err)
{
	struct json_object *o = query_jit(q->m);
	if (!o)
		error_set(err, ENOTSUP, "JIT information is only available with -accel soft");
	return o;
}

static struct json_object *do_query_kvm(struct qmp *q, struct json_object *args, struct error *err)
{
	return query_kvm(q->m);
}

static struct json_object *do_query_block(struct qmp *q, struct json_object *args,
					  struct error *err)
{
	return query_block(q->m);
}

static struct json_object *do_query_chardev(struct qmp *q, struct json_object *args,
					    struct error *err)
{
	return query_chardev(q->m);
}

static struct json_object *do_query_rx_filter(struct qmp *q, struct json_object *args,
					      struct error *err)
{
	return query_rx_filter(q->m, string_argument(args, "name"), err);
}

static struct json_object *do_set_link(struct qmp *q, struct json_object *args, struct error *err)
{
	nics_set_link(q->m, string_argument(args, "name"), bool_argument(args, "up"), err);
	return NULL;
}

static struct json_object *do_query_cpus(struct qmp *q, struct json_object *args, struct error *err)
{
	return query_cpus(q->m);
}

static struct json_object *do_stop(struct qmp *q, struct json_object *args, struct error *err)
{
	machine_stop(q->m);
	return NULL;
}

static struct json_object *do_cont(struct qmp *q, struct json_object *args, struct error *err)
{
	machine_cont(q->m, err);
	return NULL;
}

static struct json_object *do_reset(struct qmp *q, struct json_object *args, struct error *err)
{
	machine_request_reset(q->m, CAUSE_HOST_RESET);
	return NULL;
}

static struct json_object *do_powerdown(struct qmp *q, struct json_object *args, struct error *err)
{
	machine_powerdown(q->m);
	return NULL;
}

static struct json_object *do_quit(struct qmp *q, struct json_object *args, struct error *err)
{
	machine_request_quit(q->m, 0, CAUSE_HOST_QUIT);
	return NULL;
}

/* A KeyValue union: {"type": "qcode", "data": "ret"} or {"type": "number", "data": 28}. */
static int parse_key(struct json_object *key, uint8_t *out, struct error *err)
{
	struct json_object *type = NULL, *data = NULL;
	if (!json_object_is_type(key, json_type_object) ||
	    !json_object_object_get_ex(key, "type", &type) ||
	    !json_object_object_get_ex(key, "data", &data))
		return error_set(err, EINVAL,
				 "a key must be {\"type\": \"qcode\", \"data\": NAME}");
	int code = -1;
	if (!strcmp(json_object_get_string(type), "qcode") &&
	    json_object_is_type(data, json_type_string))
		code = key_from_name(json_object_get_string(data));
	else if (!strcmp(json_object_get_string(type), "number") &&
		 json_object_is_type(data, json_type_int))
		code = json_object_get_int(data);
	if (code < 1 || code > 0xFF)
		return error_set(err, EINVAL, "Parameter 'data' does not accept value '%s'",
				 json_object_get_string(data));
	*out = (uint8_t)code;
	return 0;
}

static struct json_object *do_send_key(struct qmp *q, struct json_object *args, struct error *err)
{
	struct json_object *keys = argument(args, "keys");
	uint8_t codes[KEYS_AT_ONCE];
	size_t count = json_object_array_length(keys);
	int64_t hold_ms = int_argument(args, "hold-time", KEY_HOLD_MS);
	if (count > KEYS_AT_ONCE) {
		error_set(err, EINVAL, "too many keys at once; at most %d", KEYS_AT_ONCE);
		return NULL;
	}
	if (hold_ms < 0 || hold_ms > 60000) {
		error_set(err, EINVAL, "hold-time must be 0 to 60000 ms");
		return NULL;
	}
	for (size_t n = 0; n < count; n++)
		if (parse_key(json_object_array_get_idx(keys, n), &codes[n], err) < 0)
			return NULL;
	key_typist_type(q->m->typist, codes, count, (unsigned)hold_ms, err);
	return NULL;
}

static struct json_object *do_screendump(struct qmp *q, struct json_object *args, struct error *err)
{
	const char *format = string_argument(args, "format");
	command_screendump(q->m, string_argument(args, "filename"), format ? format : "ppm", err);
	return NULL;
}

static struct json_object *do_pmemsave(struct qmp *q, struct json_object *args, struct error *err)
{
	int64_t addr = int_argument(args, "val", 0), size = int_argument(args, "size", 0);
	if (addr < 0 || size < 0 || !range_in((uint64_t)addr, (uint64_t)size, UINT64_C(1) << 40))
		error_set(err, EINVAL, "the range must lie below 1 TiB");
	else
		command_pmemsave(q->m, (uint64_t)addr, (uint64_t)size,
				 string_argument(args, "filename"), err);
	return NULL;
}

static struct json_object *do_memsave(struct qmp *q, struct json_object *args, struct error *err)
{
	int64_t addr = int_argument(args, "val", 0), size = int_argument(args, "size", 0);
	int64_t cpu = int_argument(args, "cpu-index", 0);
	if (addr < 0 || size < 0 || !range_in((uint64_t)addr, (uint64_t)size, UINT64_C(1) << 32))
		error_set(err, EINVAL, "the range must lie below 4 GiB");
	else if (cpu < 0 || cpu >= q->m->options->cpus)
		error_set(err, EINVAL, "Parameter 'cpu-index' expects a CPU number");
	else
		command_memsave(q->m, (unsigned)cpu, (uint32_t)addr, (uint64_t)size,
				string_argument(args, "filename"), err);
	return NULL;
}

/* The drive named by "device" or by "id"; we have one name for both. */
static const char *drive_argument(struct json_object *args, struct error *err)
{
	const char *id = string_argument(args, "id"), *device = string_argument(args, "device");
	if (!id == !device) {
		error_set(err, EINVAL, "Need exactly one of 'device' and 'id'");
		return NULL;
	}
	return id ? id : device;
}

static struct json_object *do_object_add(struct qmp *q, struct json_object *args, struct error *err)
{
	struct opts opts = {0};
	json_object_object_foreach(args, name, value)
	{
		if (json_object_is_type(value, json_type_boolean))
			opts_set(&opts, name, json_object_get_boolean(value) ? "on" : "off");
		else
			opts_set(&opts, name, json_object_get_string(value));
	}
	object_add_opts(q->m, &opts, err);
	opts_free(&opts);
	return NULL;
}

static struct json_object *do_object_del(struct qmp *q, struct json_object *args, struct error *err)
{
	object_delete(string_argument(args, "id"), err);
	return NULL;
}

static struct json_object *do_eject(struct qmp *q, struct json_object *args, struct error *err)
{
	const char *id = drive_argument(args, err);
	if (id)
		command_eject(q->m, id, bool_argument(args, "force"), err);
	return NULL;
}

static struct json_object *do_change_medium(struct qmp *q, struct json_object *args,
					    struct error *err)
{
	const char *id = drive_argument(args, err);
	if (id)
		command_change(q->m, id, string_argument(args, "filename"),
			       string_argument(args, "format"),
			       string_argument(args, "read-only-mode"), err);
	return NULL;
}

static struct json_object *do_set_io_throttle(struct qmp *q, struct json_object *args,
					      struct error *err)
{
	struct throttle_limits limits = {0};
	const char *id = drive_argument(args, err);
	if (!id)
		return NULL;
	for (int i = 0; i < THROTTLE_NAMES; i++) {
		const char *name = throttle_names[i].qmp;
		struct throttle_limit *l = &limits.bucket[throttle_names[i].bucket];
		char key[32];
		l->avg = (uint64_t)int_argument(args, name, 0);
		snprintf(key, sizeof(key), "%s_max", name);
		l->max = (uint64_t)int_argument(args, key, 0);
		snprintf(key, sizeof(key), "%s_max_length", name);
		l->length = (uint64_t)int_argument(args, key, 0);
		if (argument(args, key) && !l->length) {
			error_set(err, EINVAL, "%s must be 1 second or more", key);
			return NULL;
		}
	}
	limits.iops_size = (uint64_t)int_argument(args, "iops_size", 0);
	command_set_limits(q->m, id, &limits, string_argument(args, "group"), err);
	return NULL;
}

static struct json_object *do_human_command(struct qmp *q, struct json_object *args,
					    struct error *err)
{
	struct strbuf out = STRBUF_INIT;
	int64_t cpu = int_argument(args, "cpu-index", q->current_cpu);
	if (cpu < 0 || cpu >= q->m->options->cpus) {
		error_set(err, EINVAL, "Parameter 'cpu-index' expects a CPU number");
		return NULL;
	}
	unsigned given = (unsigned)cpu;
	bool own = !argument(args, "cpu-index");
	monitor_run(q->m, own ? &q->current_cpu : &given, string_argument(args, "command-line"),
		    &out);
	struct json_object *text = json_object_new_string(strbuf_str(&out));
	strbuf_free(&out);
	return text;
}

static struct json_object *do_nmi(struct qmp *q, struct json_object *args, struct error *err)
{
	for (unsigned n = 0; n < q->m->options->cpus; n++)
		q->m->engine->ops->nmi(q->m->engine, n);
	return NULL;
}

static struct json_object *do_query_commands(struct qmp *q, struct json_object *args,
					     struct error *err);

struct qmp_command {
	const char *name;
	struct json_object *(*run)(struct qmp *q, struct json_object *args, struct error *err);
	struct qmp_argument args[24]; /* ended by one without a name */
};

static const struct qmp_command commands[] = {
	{"qmp_capabilities", do_capabilities, {{"enable", json_type_array, true}}},
	{"query-commands", do_query_commands, {{0}}},
	{"query-status", do_query_status, {{0}}},
	{"query-version", do_query_version, {{0}}},
	{"query-name", do_query_name, {{0}}},
	{"query-uuid", do_query_uuid, {{0}}},
	{"query-kvm", do_query_kvm, {{0}}},
	{"x-query-jit", do_query_jit, {{0}}},
	{"query-block", do_query_block, {{0}}},
	{"query-chardev", do_query_chardev, {{0}}},
	{"query-cpus-fast", do_query_cpus, {{0}}},
	{"query-rx-filter", do_query_rx_filter, {{"name", json_type_string, true}}},
	{"set_link",
	 do_set_link,
	 {{"name", json_type_string, false}, {"up", json_type_boolean, false}}},
	{"stop", do_stop, {{0}}},
	{"cont", do_cont, {{0}}},
	{"system_reset", do_reset, {{0}}},
	{"system_powerdown", do_powerdown, {{0}}},
	{"quit", do_quit, {{0}}},
	{"inject-nmi", do_nmi, {{0}}},
	{"send-key",
	 do_send_key,
	 {{"keys", json_type_array, false}, {"hold-time", json_type_int, true}}},
	{"screendump",
	 do_screendump,
	 {{"filename", json_type_string, false}, {"format", json_type_string, true}}},
	{"pmemsave",
	 do_pmemsave,
	 {{"val", json_type_int, false},
	  {"size", json_type_int, false},
	  {"filename", json_type_string, false}}},
	{"memsave",
	 do_memsave,
	 {{"val", json_type_int, false},
	  {"size", json_type_int, false},
	  {"filename", json_type_string, false},
	  {"cpu-index", json_type_int, true}}},
	{"eject",
	 do_eject,
	 {{"device", json_type_string, true},
	  {"id", json_type_string, true},
	  {"force", json_type_boolean, true}}},
	{"object-add",
	 do_object_add,
	 {{"qom-type", json_type_string, false},
	  {"id", json_type_string, false},
	  {ANY_ARGUMENT, json_type_null, true}}},
	{"object-del", do_object_del, {{"id", json_type_string, false}}},
	{"blockdev-change-medium",
	 do_change_medium,
	 {{"device", json_type_string, true},
	  {"id", json_type_string, true},
	  {"filename", json_type_string, false},
	  {"format", json_type_string, true},
	  {"force", json_type_boolean, true},
	  {"read-only-mode", json_type_string, true}}},
	{"block_set_io_throttle",
	 do_set_io_throttle,
	 {{"device", json_type_string, true},
	  {"id", json_type_string, true},
	  {"bps", json_type_int, false},
	  {"bps_rd", json_type_int, false},
	  {"bps_wr", json_type_int, false},
	  {"iops", json_type_int, false},
	  {"iops_rd", json_type_int, false},
	  {"iops_wr", json_type_int, false},
	  {"bps_max", json_type_int, true},
	  {"bps_rd_max", json_type_int, true},
	  {"bps_wr_max", json_type_int, true},
	  {"iops_max", json_type_int, true},
	  {"iops_rd_max", json_type_int, true},
	  {"iops_wr_max", json_type_int, true},
	  {"bps_max_length", json_type_int, true},
	  {"bps_rd_max_length", json_type_int, true},
	  {"bps_wr_max_length", json_type_int, true},
	  {"iops_max_length", json_type_int, true},
	  {"iops_rd_max_length", json_type_int, true},
	  {"iops_wr_max_length", json_type_int, true},
	  {"iops_size", json_type_int, true},
	  {"group", json_type_string, true}}},
	{"human-monitor-command",
	 do_human_command,
	 {{"command-line", json_type_string, false}, {"cpu-index", json_type_int, true}}},
};

static struct json_object *do_query_commands(struct qmp *q, struct json_object *args,
					     struct error *err)
{
	struct json_object *list = json_object_new_array();
	for (size_t n = 0; n < ARRAY_SIZE(commands); n++) {
		struct json_object *entry = json_object_new_object();
		json_object_object_add(entry, "name", json_object_new_string(commands[n].name));
		json_object_array_add(list, entry);
	}
	return list;
}

/* ---- Input ---- */

static const struct qmp_command *find_command(const char *name)
{
	for (size_t n = 0; n < ARRAY_SIZE(commands); n++)
		if (!strcmp(commands[n].name, name))
			return &commands[n];
	return NULL;
}

static void run_command(struct qmp *q, const char *name, struct json_object *args,
			struct json_object *id)
{
	struct error err = ERROR_INIT;
	const struct qmp_command *command = find_command(name);
	if (!q->negotiated && strcmp(name, "qmp_capabilities")) {
		send_error(q, id, "CommandNotFound",
			   "Expecting capabilities negotiation with 'qmp_capabilities'");
		return;
	}
	if (!command || (q->negotiated && command->run == do_capabilities)) {
		error_set(&err, ENOENT,
			  command ? "Capabilities negotiation is already complete, command ignored"
				  : "The command %s has not been found",
			  name);
		send_error(q, id, "CommandNotFound", err.text);
		return;
	}
	struct json_object *value = NULL;
	if (check_arguments(command->args, args, &err) == 0)
		value = command->run(q, args, &err);
	if (err.code) {
		json_object_put(value);
		send_error(q, id, err.code == ENODEV ? "DeviceNotFound" : "GenericError", err.text);
		return;
	}
	struct json_object *reply = json_object_new_object();
	json_object_object_add(reply, "return", value ? value : json_object_new_object());
	add_id(reply, id);
	send_object(q, reply);
}

static void run_message(struct qmp *q, struct json_object *message)
{
	struct json_object *execute = NULL, *args = NULL, *id = NULL;
	if (!json_object_is_type(message, json_type_object)) {
		send_error(q, NULL, "GenericError", "QMP input must be a JSON object");
		return;
	}
	json_object_object_get_ex(message, "id", &id);
	json_object_object_foreach(message, key, value)
	{
		(void)value;
		if (strcmp(key, "execute") && strcmp(key, "arguments") && strcmp(key, "id")) {
			char text[128];
			snprintf(text, sizeof(text), "QMP input member '%.60s' is unexpected", key);
			send_error(q, id, "GenericError", text);
			return;
		}
	}
	if (!json_object_object_get_ex(message, "execute", &execute) ||
	    !json_object_is_type(execute, json_type_string)) {
		send_error(q, id, "GenericError", "QMP input lacks member 'execute'");
		return;
	}
	if (json_object_object_get_ex(message, "arguments", &args) &&
	    !json_object_is_type(args, json_type_object)) {
		send_error(q, id, "GenericError", "QMP input member 'arguments' must be an object");
		return;
	}
	trace(TRACE_MONITOR, "qmp: %s", json_object_get_string(execute));
	run_command(q, json_object_get_string(execute), args, id);
}

static void restart_parser(struct qmp *q)
{
	json_tokener_reset(q->tokener);
	q->message_bytes = 0;
}

static size_t qmp_can_receive(void *opaque)
{
	struct qmp *q = opaque;
	return chardev_backlog(q->chr) > MAX_BACKLOG ? 0 : 4096;
}

static void qmp_drained(void *opaque)
{
	struct qmp *q = opaque;
	chardev_accept_input(q->chr);
}

static void qmp_receive(void *opaque, const uint8_t *buf, size_t len)
{
	struct qmp *q = opaque;
	if (!chardev_connected(q->chr))
		return; /* the rest of what a peer sent that has left */
	while (len) {
		/* White space between messages would make the tokener wait for more. */
		if (!q->message_bytes && strchr(" \t\r\n", buf[0])) {
			buf++;
			len--;
			continue;
		}
		struct json_object *message =
			json_tokener_parse_ex(q->tokener, (const char *)buf, (int)len);
		enum json_tokener_error state = json_tokener_get_error(q->tokener);
		if (state == json_tokener_continue) {
			q->message_bytes += len;
			if (q->message_bytes > MAX_MESSAGE) {
				send_error(q, NULL, "GenericError", "JSON message is too large");
				restart_parser(q);
			}
			return;
		}
		if (state != json_tokener_success) {
			send_error(q, NULL, "GenericError", "JSON parse error");
			restart_parser(q);
			return;
		}
		size_t used = json_tokener_get_parse_end(q->tokener);
		restart_parser(q);
		run_message(q, message);
		json_object_put(message);
		buf += used;
		len -= used;
	}
}

static void qmp_opened(void *opaque, bool open)
{
	struct qmp *q = opaque;
	q->negotiated = false;
	restart_parser(q);
	if (open)
		send_greeting(q);
}

struct qmp *qmp_new(struct machine *m, struct chardev *chr, bool pretty)
{
	struct qmp *q = xcalloc(1, sizeof(*q));
	q->m = m;
	q->chr = chr;
	q->pretty = pretty;
	q->tokener = json_tokener_new_ex(MAX_DEPTH);
	q->listener = (struct machine_listener){.event = send_event, .opaque = q};
	machine_add_listener(m, &q->listener);
	q->next = m->qmps;
	m->qmps = q;
	const struct chardev_frontend frontend = {
		.can_receive = qmp_can_receive,
		.receive = qmp_receive,
		.opened = qmp_opened,
		.drained = qmp_drained,
		.opaque = q,
	};
	chardev_attach(chr, &frontend);
	return q;
}

void qmp_free_all(struct machine *m)
{
	while (m->qmps) {
		struct qmp *q = m->qmps;
		m->qmps = q->next;
		chardev_attach(q->chr, NULL);
		machine_remove_listener(&q->listener);
		json_tokener_free(q->tokener);
		free(q);
	}
}
