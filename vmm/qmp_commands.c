/* SPDX-License-Identifier: MIT */
/*
 * The commands of QMP: one function each, and the table of their names and arguments (QEMU's QAPI
 * schema). What other files know how to do, or to tell as JSON (vmm/query.h), is called here
 * under QMP's names for it.
 */
#include "core/input.h"
#include "lib/bytes.h"
#include "lib/object.h"
#include "lib/strbuf.h"
#include "lib/text.h"
#include "vmm/commands.h"
#include "vmm/drive_options.h"
#include "vmm/json_opts.h"
#include "vmm/machine.h"
#include "vmm/monitor.h"
#include "vmm/net_announce.h"
#include "vmm/nics.h"
#include "vmm/qmp_internal.h"
#include "vmm/query.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ---- Arguments ---- */

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

int qmp_check_arguments(const struct qmp_argument *known, struct json_object *args,
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

/* ---- Commands ---- */

struct json_object *qmp_do_capabilities(struct qmp *q, struct json_object *args, struct error *err)
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

static struct json_object *do_netdev_add(struct qmp *q, struct json_object *args, struct error *err)
{
	struct opts opts = {0};
	json_to_opts(args, &opts);
	opts.source = xstrdup(string_argument(args, "id"));
	nics_netdev_add_opts(q->m, &opts, err);
	opts_free(&opts);
	return NULL;
}

static struct json_object *do_netdev_del(struct qmp *q, struct json_object *args, struct error *err)
{
	nics_netdev_del(q->m, string_argument(args, "id"), err);
	return NULL;
}

static struct json_object *do_announce_self(struct qmp *q, struct json_object *args,
					    struct error *err)
{
	enum { MAX_NAMES = 64 };
	struct announcement how = ANNOUNCEMENT_DEFAULT;
	struct {
		const char *name;
		uint64_t *value;
	} numbers[] = {{"initial", &how.initial},
		       {"max", &how.max},
		       {"rounds", &how.rounds},
		       {"step", &how.step}};
	struct json_object *list = argument(args, "interfaces");
	const char *names[MAX_NAMES + 1] = {0};
	size_t count = list ? json_object_array_length(list) : 0;
	for (size_t n = 0; n < ARRAY_SIZE(numbers); n++) {
		int64_t value = int_argument(args, numbers[n].name, (int64_t)*numbers[n].value);
		/* What is negative is out of bounds as well as what is too large. */
		*numbers[n].value = (uint64_t)value;
	}
	for (size_t n = 0; n < count && n < MAX_NAMES; n++)
		names[n] = json_object_get_string(json_object_array_get_idx(list, n));
	net_announce(q->m, &how, list ? names : NULL, err);
	return NULL;
}

static struct json_object *do_object_add(struct qmp *q, struct json_object *args, struct error *err)
{
	struct opts opts = {0};
	json_to_opts(args, &opts);
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

static const struct qmp_command commands[] = {
	{"qmp_capabilities", qmp_do_capabilities, {{"enable", json_type_array, true}}},
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
	{"announce-self",
	 do_announce_self,
	 {{"initial", json_type_int, true},
	  {"max", json_type_int, true},
	  {"rounds", json_type_int, true},
	  {"step", json_type_int, true},
	  {"interfaces", json_type_array, true},
	  {"id", json_type_string, true}}},
	{"netdev_add",
	 do_netdev_add,
	 {{"type", json_type_string, false},
	  {"id", json_type_string, false},
	  {ANY_ARGUMENT, json_type_null, true}}},
	{"netdev_del", do_netdev_del, {{"id", json_type_string, false}}},
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

const struct qmp_command *qmp_find_command(const char *name)
{
	for (size_t n = 0; n < ARRAY_SIZE(commands); n++)
		if (!strcmp(commands[n].name, name))
			return &commands[n];
	return NULL;
}
