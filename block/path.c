/* SPDX-License-Identifier: MIT */
/* Image names (path.h). A colon before the first slash makes the part before it a protocol, as with
 * QEMU. */
#include "block/path.h"
#include "block/nbd_client.h"
#include "lib/text.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#ifdef HAVE_JSONC
#include <json-c/json.h>
#endif

/* Length of the protocol name with its colon; 0 if there is none. */
static size_t protocol_length(const char *name)
{
	size_t n = strcspn(name, ":/");
	return name[n] == ':' ? n + 1 : 0;
}

bool path_is_absolute(const char *name)
{
	return name[0] == '/' || protocol_length(name) != 0;
}

char *path_directory(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash ? xasprintf("%.*s", (int)(slash - path + 1), path) : xstrdup("./");
}

char *path_combine(const char *of, const char *name)
{
	if (path_is_absolute(name))
		return xstrdup(name);
	const char *slash = strrchr(of, '/');
	return slash ? xasprintf("%.*s%s", (int)(slash - of + 1), of, name) : xstrdup(name);
}

#ifdef HAVE_JSONC
enum { MAX_NESTING = 8 };

static const char *json_text(struct json_object *o, const char *key)
{
	struct json_object *v;
	if (!json_object_object_get_ex(o, key, &v) || !json_object_is_type(v, json_type_string))
		return NULL;
	return json_object_get_string(v);
}

/* {"driver":"qcow2","file":{"driver":"file","filename":"x"}}, the same with dotted keys, or a bare
 * file node. */
static char *path_of_json(const char *text, char **format, struct error *err)
{
	struct json_object *root = json_tokener_parse(text), *file;
	char *path = NULL;
	if (!root || !json_object_is_type(root, json_type_object)) {
		error_set(err, EINVAL, "'json:%s' is not a JSON object", text);
		goto out;
	}
	const char *driver = json_text(root, "driver");
	const char *name = json_text(root, "file.filename");
	const char *protocol = json_text(root, "file.driver");
	if (json_object_object_get_ex(root, "file", &file) &&
	    json_object_is_type(file, json_type_object)) {
		name = json_text(file, "filename");
		protocol = json_text(file, "driver");
	}
	if (!name) {
		name = json_text(root, "filename");
		protocol = driver;
		driver = NULL;
	}
	if (protocol && strcmp(protocol, "file") != 0 && strcmp(protocol, "host_device") != 0)
		error_set(err, ENOTSUP, "block protocol '%s' in 'json:%s' is not supported",
			  protocol, text);
	else if (!name)
		error_set(err, EINVAL,
			  "'json:%s' names no file; it needs \"file\":{\"filename\":...}", text);
	else
		path = xstrdup(name);
	if (path && driver && format)
		*format = xstrdup(driver);
out:
	json_object_put(root);
	return path;
}

/* Appends the members of an object, with `prefix` before their keys. */
static void flatten(struct json_object *object, const char *prefix, unsigned depth,
		    struct opts *opts)
{
	json_object_object_foreach(object, key, value)
	{
		char *full = xasprintf("%s%s", prefix, key);
		if (json_object_is_type(value, json_type_object) && depth < MAX_NESTING) {
			char *inner = xasprintf("%s.", full);
			flatten(value, inner, depth + 1, opts);
			free(inner);
		} else if (json_object_is_type(value, json_type_boolean)) {
			opts_set(opts, full, json_object_get_boolean(value) ? "on" : "off");
		} else {
			opts_set(opts, full, value ? json_object_get_string(value) : "");
		}
		free(full);
	}
}
#endif

bool path_nbd_json(const char *name, struct opts *opts)
{
#ifdef HAVE_JSONC
	if (strncmp(name, "json:", 5) != 0)
		return false;
	struct json_object *root = json_tokener_parse(name + 5);
	*opts = (struct opts){0};
	if (root && json_object_is_type(root, json_type_object))
		flatten(root, "", 0, opts);
	json_object_put(root);
	if (nbd_opts_prefix(opts))
		return true;
	opts_free(opts);
#endif
	return false;
}

int path_json(const char *name, struct opts *opts, struct error *err)
{
	*opts = (struct opts){0};
#ifdef HAVE_JSONC
	struct json_object *root = json_tokener_parse(name + 5);
	bool object = root && json_object_is_type(root, json_type_object);
	if (object)
		flatten(root, "", 0, opts);
	json_object_put(root);
	return object ? 0 : error_set(err, EINVAL, "'%s' is not a JSON object", name);
#else
	return error_set(err, ENOTSUP, "'%s': this minivm is built without json-c", name);
#endif
}

char *path_of_name(const char *name, char **format, struct error *err)
{
	size_t n = protocol_length(name);
	if (n == 0 || nbd_is_name(name))
		return xstrdup(name);
	if (strncmp(name, "file:", 5) == 0)
		return xstrdup(name + 5);
	if (strncmp(name, "json:", 5) == 0) {
#ifdef HAVE_JSONC
		return path_of_json(name + 5, format, err);
#else
		error_set(err, ENOTSUP, "'%s': this minivm is built without json-c", name);
		return NULL;
#endif
	}
	error_set(err, ENOTSUP,
		  "unknown block protocol '%.*s' in '%s'; write './%s' for a file of that name",
		  (int)(n - 1), name, name, name);
	return NULL;
}
