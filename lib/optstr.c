/* SPDX-License-Identifier: MIT */
/* QEMU-style option strings (optstr.h): an ordered list of key and value, the last one wins. */
#include "lib/optstr.h"
#include "lib/strbuf.h"
#include "lib/text.h"
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static void add(struct opts *opts, char *key, char *value, bool bare)
{
	opts->item = xrealloc(opts->item, (opts->count + 1) * sizeof(*opts->item));
	opts->item[opts->count++] = (struct opt){.key = key, .value = value, .bare = bare};
}

/* Reads up to a single comma, turning ",," into ","; *p is left behind the comma or at the end. */
static char *take_value(const char **p)
{
	struct strbuf sb = STRBUF_INIT;
	const char *s = *p;
	for (; *s; s++) {
		if (*s == ',') {
			if (s[1] != ',')
				break;
			s++;
		}
		strbuf_append(&sb, s, 1);
	}
	*p = *s ? s + 1 : s;
	return strbuf_steal(&sb);
}

int opts_parse(struct opts *opts, const char *text, const char *implied_key, struct error *err)
{
	*opts = (struct opts){.source = xstrdup(text)};
	bool first = true;
	for (const char *p = text; *p; first = false) {
		size_t len = strcspn(p, "=,");
		if (first && implied_key && p[len] != '=') {
			add(opts, xstrdup(implied_key), take_value(&p), false);
			continue;
		}
		if (len == 0) {
			error_set(err, EINVAL, "in '%s' a name is missing before '%s'", text, p);
			opts_free(opts);
			return -EINVAL;
		}
		char *key = strndup(p, len);
		if (!key)
			key = xstrdup("");
		p += len;
		if (*p == '=') {
			p++;
			add(opts, key, take_value(&p), false);
		} else {
			if (*p)
				p++;
			add(opts, key, xstrdup("on"), true);
		}
	}
	return 0;
}

void opts_free(struct opts *opts)
{
	for (size_t i = 0; i < opts->count; i++) {
		free(opts->item[i].key);
		free(opts->item[i].value);
	}
	free(opts->item);
	free(opts->source);
	*opts = (struct opts){0};
}

const char *opts_get(struct opts *opts, const char *key)
{
	const char *value = NULL;
	for (size_t i = 0; i < opts->count; i++) {
		if (strcmp(opts->item[i].key, key) == 0) {
			opts->item[i].used = true;
			value = opts->item[i].value;
		}
	}
	return value;
}

bool opts_has(const struct opts *opts, const char *key)
{
	for (size_t i = 0; i < opts->count; i++)
		if (strcmp(opts->item[i].key, key) == 0)
			return true;
	return false;
}

void opts_set(struct opts *opts, const char *key, const char *value)
{
	add(opts, xstrdup(key), xstrdup(value), false);
}

int opts_get_bool(struct opts *opts, const char *key, bool *out, struct error *err)
{
	static const struct {
		const char *word;
		bool value;
	} words[] = {{"on", true},   {"off", false},   {"yes", true}, {"no", false},
		     {"true", true}, {"false", false}, {"y", true},   {"n", false}};
	const char *text = opts_get(opts, key);
	if (!text)
		return 0;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (strcasecmp(text, words[i].word) == 0) {
			*out = words[i].value;
			return 0;
		}
	}
	return error_set(err, EINVAL, "'%s' must be 'on' or 'off', not '%s'", key, text);
}

int opts_get_u64(struct opts *opts, const char *key, uint64_t *out, struct error *err)
{
	const char *text = opts_get(opts, key);
	if (!text)
		return 0;
	char what[128] = "'";
	strncat(what, key, sizeof(what) - 4);
	strcat(what, "'");
	return parse_u64(text, what, 0, UINT64_MAX, out, err);
}

int opts_get_size(struct opts *opts, const char *key, uint64_t *out, struct error *err)
{
	const char *text = opts_get(opts, key);
	if (!text)
		return 0;
	int rc = parse_size(text, 1, out, err);
	if (rc)
		error_prefix(err, "'%s'", key);
	return rc;
}

int opts_get_enum(struct opts *opts, const char *key, const char *const *choices, int *out,
		  struct error *err)
{
	const char *text = opts_get(opts, key);
	if (!text)
		return 0;
	for (int i = 0; choices[i]; i++) {
		if (strcmp(text, choices[i]) == 0) {
			*out = i;
			return 0;
		}
	}
	struct strbuf all = STRBUF_INIT;
	for (int i = 0; choices[i]; i++)
		strbuf_printf(&all, "%s'%s'",
			      i == 0           ? ""
			      : choices[i + 1] ? ", "
					       : " or ",
			      choices[i]);
	error_set(err, EINVAL, "'%s' must be %s, not '%s'", key, strbuf_str(&all), text);
	strbuf_free(&all);
	return -EINVAL;
}

int opts_check_unused(const struct opts *opts, const char *what, const char *const *known,
		      struct error *err)
{
	for (size_t i = 0; i < opts->count; i++) {
		if (opts->item[i].used)
			continue;
		const char *key = opts->item[i].key;
		const char *near = known ? nearest_word(key, known) : NULL;
		if (near && strcmp(near, key) != 0)
			return error_set(err, EINVAL,
					 "%s: unknown parameter '%s'; did you mean '%s'?", what,
					 key, near);
		return error_set(err, EINVAL, "%s: unknown parameter '%s'", what, key);
	}
	return 0;
}

int opts_check_id(const char *id, struct error *err)
{
	bool good = isalpha((unsigned char)id[0]);
	for (const char *p = id; *p && good; p++)
		good = isalnum((unsigned char)*p) || strchr("-._", *p);
	if (good)
		return 0;
	return error_set(err, EINVAL,
			 "id=%s is no name; it begins with a letter and has letters, digits, '-', "
			 "'.' and '_'",
			 id);
}
