/* SPDX-License-Identifier: MIT */
/* The set of objects (object.h): a list in the order of making, under one lock. */
#include "lib/object.h"
#include "lib/list.h"
#include "lib/text.h"
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct entry {
	char *id;
	const struct object_type *type;
	void *object;
	struct list link;
};

/* Recursive: an object may look up another while it is made (a key names its password). */
static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static struct list entries = LIST_INIT(entries);
static const struct object_type *const *types;

enum { MAX_TYPES = 64 };

void object_set_types(const struct object_type *const *table)
{
	types = table;
}

const struct object_type *object_find_type(const char *name, struct error *err)
{
	const char *names[MAX_TYPES + 1];
	size_t n = 0;
	for (; types && types[n] && n < MAX_TYPES; n++) {
		if (strcmp(types[n]->name, name) == 0)
			return types[n];
		names[n] = types[n]->name;
	}
	names[n] = NULL;
	const char *near = nearest_word(name, names);
	if (near)
		error_set(err, EINVAL, "unknown object type '%s'; did you mean '%s'?", name, near);
	else
		error_set(err, EINVAL, "unknown object type '%s'; -object help lists them", name);
	return NULL;
}

void object_print_help(void)
{
	puts("List of user creatable objects:");
	for (size_t n = 0; types && types[n]; n++)
		printf("  %-18s %s\n", types[n]->name, types[n]->help);
}

static struct entry *find(const char *id)
{
	struct list *it;
	list_for_each(it, &entries)
	{
		struct entry *e = list_entry(it, struct entry, link);
		if (strcmp(e->id, id) == 0)
			return e;
	}
	return NULL;
}

static int add(void *context, struct opts *opts, struct error *err)
{
	const char *name = opts_get(opts, "qom-type"), *id = opts_get(opts, "id");
	if (!name || !*name)
		return error_set(err, EINVAL,
				 "it needs a type, as in secret,id=s0; -object help lists them");
	const struct object_type *type = object_find_type(name, err);
	if (!type)
		return -EINVAL;
	if (!id)
		return error_set(err, EINVAL, "the object needs id=");
	if (opts_check_id(id, err) < 0)
		return -EINVAL;
	if (find(id))
		return error_set(err, EEXIST, "there is an object with id=%s already", id);
	void *object = type->create(context, id, opts, err);
	if (!object)
		return -(err && err->code ? err->code : EINVAL);
	int r = opts_check_unused(opts, name, NULL, err);
	if (r < 0) {
		type->free(object);
		return r;
	}
	struct entry *e = xcalloc(1, sizeof(*e));
	*e = (struct entry){.id = xstrdup(id), .type = type, .object = object};
	list_push_back(&entries, &e->link);
	return 0;
}

int object_add_opts(void *context, struct opts *opts, struct error *err)
{
	struct error local = ERROR_INIT;
	pthread_mutex_lock(&lock);
	int r = add(context, opts, err ? err : &local);
	pthread_mutex_unlock(&lock);
	return r;
}

int object_add(void *context, const char *text, struct error *err)
{
	struct opts opts;
	int r = opts_parse(&opts, text, "qom-type", err);
	if (r < 0)
		return r;
	r = object_add_opts(context, &opts, err);
	opts_free(&opts);
	return r;
}

static void drop(struct entry *e)
{
	list_remove(&e->link);
	e->type->free(e->object);
	free(e->id);
	free(e);
}

int object_delete(const char *id, struct error *err)
{
	pthread_mutex_lock(&lock);
	struct entry *e = find(id);
	int r = 0;
	if (!e)
		r = error_set(err, ENOENT, "there is no object with id=%s", id);
	else if (e->type->may_delete)
		r = e->type->may_delete(e->object, err);
	if (r == 0)
		drop(e);
	pthread_mutex_unlock(&lock);
	return r;
}

int object_use(const char *id, const struct object_type *type,
	       int (*found)(void *object, void *opaque), void *opaque, struct error *err)
{
	pthread_mutex_lock(&lock);
	struct entry *e = find(id);
	int r = 0;
	if (!e)
		r = error_set(err, ENOENT, "there is no -object with id=%s", id);
	else if (e->type != type)
		r = error_set(err, EINVAL, "object '%s' is of type %s, not %s", id, e->type->name,
			      type->name);
	else if (found)
		r = found(e->object, opaque);
	pthread_mutex_unlock(&lock);
	return r;
}

void object_each(void (*each)(const char *id, const struct object_type *type, void *object,
			      void *opaque),
		 void *opaque)
{
	pthread_mutex_lock(&lock);
	struct list *it, *next;
	list_for_each_safe(it, next, &entries)
	{
		struct entry *e = list_entry(it, struct entry, link);
		each(e->id, e->type, e->object, opaque);
	}
	pthread_mutex_unlock(&lock);
}

void object_free_all(enum object_phase phase)
{
	pthread_mutex_lock(&lock);
	for (struct list *it = entries.prev, *before; it != &entries; it = before) {
		struct entry *e = list_entry(it, struct entry, link);
		before = it->prev;
		if (e->type->phase == phase)
			drop(e);
	}
	pthread_mutex_unlock(&lock);
}
