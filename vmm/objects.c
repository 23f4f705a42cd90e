/* SPDX-License-Identifier: MIT */
/*
 * -object (objects.h): the list of types that minivm has, and the making of the command line's
 * objects in phases, since some name chardevs, backends or drives, and others are named by them.
 */
#include "vmm/objects.h"
#include "lib/secret.h"
#include "lib/tls.h"
#include "vmm/filters.h"
#include "vmm/machine.h"
#include "vmm/rng.h"
#include "vmm/throttle_object.h"
#include <errno.h>
#include <stddef.h>

/* One row a type: its name, properties, phase and functions are in the struct (lib/object.h). */
static const struct object_type *const types[] = {
	&secret_type,         &tls_creds_x509_type,
	&tls_creds_psk_type,  &tls_creds_anon_type,
	&throttle_group_type, &filter_dump_type,
	&rng_random_type,     &rng_builtin_type,
	&rng_egd_type,        NULL,
};

void objects_init(void)
{
	object_set_types(types);
}

/* The phase of an object of the command line; an unknown type is met, and refused, in the first. */
static enum object_phase phase_of(const char *text)
{
	struct opts opts;
	enum object_phase phase = OBJECT_FIRST;
	if (opts_parse(&opts, text, "qom-type", NULL) < 0)
		return phase;
	const char *name = opts_get(&opts, "qom-type");
	const struct object_type *type = name ? object_find_type(name, NULL) : NULL;
	if (type)
		phase = type->phase;
	opts_free(&opts);
	return phase;
}

int objects_create(struct machine *m, enum object_phase phase, struct error *err)
{
	const struct arg_list *list = &m->options->object;
	for (size_t n = 0; n < list->count; n++) {
		if (phase_of(list->item[n]) != phase)
			continue;
		int r = object_add(m, list->item[n], err);
		if (r < 0) {
			error_prefix(err, "-object %s", list->item[n]);
			return r;
		}
	}
	return 0;
}
