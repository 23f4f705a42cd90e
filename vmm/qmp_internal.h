/* SPDX-License-Identifier: MIT */
/* QMP: what its server (qmp.c) and its commands (qmp_commands.c) share. All under the machine
 * lock. */
#ifndef VMM_QMP_INTERNAL_H
#define VMM_QMP_INTERNAL_H

#include "lib/error.h"
#include "vmm/machine.h"
#include "vmm/qmp.h"
#include <json-c/json.h>

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

struct qmp_argument {
	const char *name;
	enum json_type type;
	bool optional;
};

struct qmp_command {
	const char *name;
	/* `args` fits the table below, or is NULL. Returns the value of "return", which the caller
	 * releases (NULL: an empty object); or sets the error. */
	struct json_object *(*run)(struct qmp *q, struct json_object *args, struct error *err);
	struct qmp_argument args[24]; /* ended by one without a name */
};

/* The command of that name, or NULL. */
const struct qmp_command *qmp_find_command(const char *name);
/* Whether the arguments (NULL: none) are those of a command's table: 0, or -EINVAL. */
int qmp_check_arguments(const struct qmp_argument *known, struct json_object *args,
			struct error *err);
/* The one command that is allowed before, and only before, the negotiation. */
struct json_object *qmp_do_capabilities(struct qmp *q, struct json_object *args, struct error *err);

#endif
