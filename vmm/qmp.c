/* SPDX-License-Identifier: MIT */
/*
 * QMP server (QEMU docs/interop/qmp-spec): a greeting, capability negotiation, then commands
 *
 *   {"execute": NAME, "arguments": {...}, "id": ANY}
 *       ->  {"return": VALUE, "id": ANY}
 *       or  {"error": {"class": C, "desc": TEXT}, "id": ANY}
 *
 * and events in between. Commands (qmp_commands.c) run in the order received, each to its end, on
 * the loop's thread.
 *
 * The peer is trusted as little as any input: its nesting and size are bounded, and every argument
 * is checked against the command's table of arguments (name, type, optional) before the command
 * runs.
 */
#include "vmm/qmp.h"
#include "core/chardev.h"
#include "lib/log.h"
#include "lib/strbuf.h"
#include "lib/text.h"
#include "vmm/qmp_internal.h"
#include "vmm/query.h"
#include <errno.h>
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

/* ---- Input ---- */

static void run_command(struct qmp *q, const char *name, struct json_object *args,
			struct json_object *id)
{
	struct error err = ERROR_INIT;
	const struct qmp_command *command = qmp_find_command(name);
	if (!q->negotiated && strcmp(name, "qmp_capabilities")) {
		send_error(q, id, "CommandNotFound",
			   "Expecting capabilities negotiation with 'qmp_capabilities'");
		return;
	}
	if (!command || (q->negotiated && command->run == qmp_do_capabilities)) {
		error_set(&err, ENOENT,
			  command ? "Capabilities negotiation is already complete, command ignored"
				  : "The command %s has not been found",
			  name);
		send_error(q, id, "CommandNotFound", err.text);
		return;
	}
	struct json_object *value = NULL;
	if (qmp_check_arguments(command->args, args, &err) == 0)
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
