/* SPDX-License-Identifier: MIT */
#include "vmm/json_opts.h"
#include "lib/list.h"
#include "lib/strbuf.h"
#include "lib/text.h"
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH_MAX = 8, KEY_MAX = 128 };

static void add_value(struct opts *opts, const char *key, struct json_object *value,
		      unsigned depth);

static void add_members(struct opts *opts, const char *prefix, struct json_object *object,
			unsigned depth)
{
	json_object_object_foreach(object, name, value)
	{
		char key[KEY_MAX];
		snprintf(key, sizeof(key), "%s%s%s", prefix, *prefix ? "." : "", name);
		add_value(opts, key, value, depth);
	}
}

static void add_value(struct opts *opts, const char *key, struct json_object *value, unsigned depth)
{
	struct json_object *text;
	if (depth == DEPTH_MAX) {
		/* Too deep for any option: as text it is refused by whoever takes the options. */
		opts_set(opts, key, json_object_get_string(value));
		return;
	}
	switch (json_object_get_type(value)) {
	case json_type_array:
		for (size_t n = 0; n < json_object_array_length(value); n++)
			add_value(opts, key, json_object_array_get_idx(value, n), depth + 1);
		break;
	case json_type_object:
		if (json_object_object_length(value) == 1 &&
		    json_object_object_get_ex(value, "str", &text))
			opts_set(opts, key, json_object_get_string(text));
		else
			add_members(opts, key, value, depth + 1);
		break;
	case json_type_boolean:
		opts_set(opts, key, json_object_get_boolean(value) ? "on" : "off");
		break;
	case json_type_null: break;
	default: opts_set(opts, key, json_object_get_string(value)); break;
	}
}

void json_to_opts(struct json_object *object, struct opts *opts)
{
	add_members(opts, "", object, 0);
}

static void append(struct strbuf *out, const char *value)
{
	for (; *value; value++)
		strbuf_printf(out, "%s%c", *value == ',' ? "," : "", *value);
}

/* What json_option() made. */
struct kept {
	struct list link;
	char *text;
};
static struct list kept = LIST_INIT(kept);

static char *write_options(const struct opts *opts, const char *first_key)
{
	struct strbuf out = STRBUF_INIT;
	size_t first = opts->count;
	for (size_t n = 0; n < opts->count; n++)
		if (!strcmp(opts->item[n].key, first_key))
			first = n;
	if (first < opts->count)
		append(&out, opts->item[first].value);
	for (size_t n = 0; n < opts->count; n++) {
		if (!strcmp(opts->item[n].key, first_key))
			continue;
		strbuf_printf(&out, "%s%s=", out.len ? "," : "", opts->item[n].key);
		append(&out, opts->item[n].value);
	}
	return strbuf_steal(&out);
}

const char *json_option(const char *option, const char *arg, const char *first_key,
			struct error *err)
{
	enum json_tokener_error why = json_tokener_success;
	if (*arg != '{')
		return arg;
	struct json_object *object = json_tokener_parse_verbose(arg, &why);
	if (!json_object_is_type(object, json_type_object)) {
		json_object_put(object);
		error_set(err, EINVAL, "%s %s: that is no JSON object: %s", option, arg,
			  json_tokener_error_desc(why));
		return NULL;
	}
	struct opts opts = {0};
	struct kept *k = xcalloc(1, sizeof(*k));
	json_to_opts(object, &opts);
	json_object_put(object);
	k->text = write_options(&opts, first_key);
	opts_free(&opts);
	list_push_back(&kept, &k->link);
	return k->text;
}
