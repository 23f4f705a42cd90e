/* SPDX-License-Identifier: MIT */
/*
 * What an NBD export is called:
 *
 *   nbd://[user@]HOST[:PORT][/EXPORT][?query]   NetworkBlockDevice/nbd, doc/uri.md; nbds: with TLS
 *   nbd+unix:///EXPORT?socket=PATH              likewise nbds+unix:
 *   nbd:HOST:PORT[:exportname=EXPORT]           QEMU's older form; [HOST] for IPv6
 *   nbd:unix:PATH[:exportname=EXPORT]
 *   host=,port=,path=,export=,...               properties of a drive with driver=nbd
 *   server.type=inet|unix,server.host=,...      the same as QMP names them
 *
 * Queries of a URI: socket=, tls-certificates=DIR, tls-psk-file=FILE, tls-hostname=. libnbd's
 * tls-verify-peer= is left out: who wants less checking makes credentials that say so.
 */
#include "block/nbd_client.h"
#include "block/nbd_proto.h"
#include "lib/bytes.h"
#include "lib/strbuf.h"
#include "lib/text.h"
#include <ctype.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/un.h>

static const struct scheme {
	const char *prefix;
	bool tls, local;
} schemes[] = {
	{"nbd://", false, false},     {"nbds://", true, false},     {"nbd+unix://", false, true},
	{"nbds+unix://", true, true}, {"nbd+tcp://", false, false}, {"nbds+tcp://", true, false},
};

bool nbd_is_name(const char *name)
{
	return !strncasecmp(name, "nbd:", 4) || !strncasecmp(name, "nbds:", 5) ||
	       !strncasecmp(name, "nbd+", 4) || !strncasecmp(name, "nbds+", 5);
}

void nbd_config_free(struct nbd_config *c)
{
	free(c->host);
	free(c->port);
	free(c->socket);
	free(c->export);
	free(c->tls_creds);
	free(c->tls_hostname);
	free(c->tls_certificates);
	free(c->tls_psk_file);
	free(c->tls_user);
	free(c->bitmap);
	*c = (struct nbd_config){0};
}

static char *copy(const char *from, size_t len)
{
	return xasprintf("%.*s", (int)len, from);
}

static void set(char **member, char *value)
{
	free(*member);
	*member = value;
}

static int hex_digit(char c)
{
	return isdigit((unsigned char)c)    ? c - '0'
	       : isxdigit((unsigned char)c) ? tolower((unsigned char)c) - 'a' + 10
					    : -1;
}

/* Undoes %XX; NULL if one is malformed or stands for the byte 0. */
static char *decode(const char *from, size_t len)
{
	char *out = xmalloc(len + 1), *p = out;
	for (size_t i = 0; i < len; i++) {
		if (from[i] != '%') {
			*p++ = from[i];
			continue;
		}
		int high = len - i > 2 ? hex_digit(from[i + 1]) : -1;
		int low = high >= 0 ? hex_digit(from[i + 2]) : -1;
		if (low < 0 || high + low == 0) {
			free(out);
			return NULL;
		}
		*p++ = (char)(high * 16 + low);
		i += 2;
	}
	*p = 0;
	return out;
}

static int bad_escape(const char *name, struct error *err)
{
	return error_set(err, EINVAL, "'%s' has a '%%' that two hexadecimal digits do not follow",
			 name);
}

/* HOST[:PORT] with [HOST] for IPv6; `len` bytes. */
static int parse_address(struct nbd_config *c, const char *name, const char *from, size_t len,
			 struct error *err)
{
	const char *end = from + len, *host = from, *host_end, *port = NULL;
	if (len && *from == '[') {
		host = from + 1;
		host_end = memchr(host, ']', (size_t)(end - host));
		if (!host_end)
			return error_set(err, EINVAL, "'%s' has no ']' behind the address", name);
		if (host_end + 1 < end && host_end[1] != ':')
			return error_set(err, EINVAL, "'%s' has something behind the ']'", name);
		port = host_end + 1 < end ? host_end + 2 : NULL;
	} else {
		host_end = memchr(host, ':', len);
		port = host_end ? host_end + 1 : NULL;
		if (!host_end)
			host_end = end;
	}
	if (host == host_end)
		return error_set(err, EINVAL, "'%s' names no host", name);
	set(&c->host, decode(host, (size_t)(host_end - host)));
	if (!c->host)
		return bad_escape(name, err);
	if (port && port < end)
		set(&c->port, copy(port, (size_t)(end - port)));
	return 0;
}

static int parse_query(struct nbd_config *c, const char *name, const char *query, struct error *err)
{
	const struct {
		const char *key;
		char **member;
	} known[] = {
		{"socket", &c->socket},
		{"tls-certificates", &c->tls_certificates},
		{"tls-psk-file", &c->tls_psk_file},
		{"tls-hostname", &c->tls_hostname},
	};
	while (*query) {
		size_t len = strcspn(query, "&;"), key_len = strcspn(query, "=&;");
		const char *value = key_len < len ? query + key_len + 1 : query + len;
		char **member = NULL;
		for (size_t i = 0; i < ARRAY_SIZE(known); i++)
			if (strlen(known[i].key) == key_len &&
			    !strncasecmp(known[i].key, query, key_len))
				member = known[i].member;
		if (!member)
			return error_set(err, EINVAL,
					 "'%s' has the unknown query '%.*s'; there are socket=, "
					 "tls-certificates=, tls-psk-file= and tls-hostname=",
					 name, (int)key_len, query);
		set(member, decode(value, (size_t)(query + len - value)));
		if (!*member)
			return bad_escape(name, err);
		query += len;
		query += *query != 0;
	}
	return 0;
}

static int parse_uri(struct nbd_config *c, const char *name, const struct scheme *scheme,
		     struct error *err)
{
	const char *authority = name + strlen(scheme->prefix);
	size_t len = strcspn(authority, "/?#");
	const char *path = authority + len;
	size_t path_len = strcspn(path, "?#");
	const char *query = path[path_len] == '?' ? path + path_len + 1 : "";
	int rc;
	c->tls = scheme->tls;
	const char *at = memchr(authority, '@', len);
	if (at) {
		set(&c->tls_user, decode(authority, (size_t)(at - authority)));
		if (!c->tls_user)
			return bad_escape(name, err);
		len -= (size_t)(at + 1 - authority);
		authority = at + 1;
	}
	if (!scheme->local && (rc = parse_address(c, name, authority, len, err)) < 0)
		return rc;
	if (scheme->local && len)
		return error_set(err, EINVAL,
				 "'%s' names a host, but a unix socket has none; write "
				 "%s/EXPORT?socket=PATH",
				 name, scheme->prefix);
	/* The export's name is what follows the first slash. */
	path += path_len > 0;
	path_len -= path_len > 0;
	set(&c->export, decode(path, path_len));
	if (!c->export)
		return bad_escape(name, err);
	if (strchr(query, '#'))
		return error_set(err, EINVAL, "'%s' has a fragment ('#...')", name);
	if ((rc = parse_query(c, name, query, err)) < 0)
		return rc;
	if (scheme->local && (!c->socket || !*c->socket))
		return error_set(err, EINVAL, "'%s' names no socket; write %s/EXPORT?socket=PATH",
				 name, scheme->prefix);
	if (!scheme->local && c->socket)
		return error_set(err, EINVAL, "'%s' has a host and a socket; a socket needs %s",
				 name, scheme->tls ? "nbds+unix:///" : "nbd+unix:///");
	return 0;
}

/* nbd:HOST:PORT[:exportname=EXPORT], nbd:unix:PATH[:exportname=EXPORT] */
static int parse_old_form(struct nbd_config *c, const char *name, struct error *err)
{
	const char *rest = name + strlen("nbd:"), *export = strstr(rest, ":exportname=");
	size_t len = export ? (size_t)(export - rest) : strlen(rest);
	set(&c->export, xstrdup(export ? export + strlen(":exportname=") : ""));
	if (!strncmp(rest, "unix:", 5)) {
		if (len == 5)
			return error_set(err, EINVAL, "'%s' names no socket", name);
		set(&c->socket, copy(rest + 5, len - 5));
		return 0;
	}
	int rc = parse_address(c, name, rest, len, err);
	if (rc == 0 && !c->port)
		return error_set(err, EINVAL, "'%s' names no port; write nbd:HOST:PORT or nbd://%s",
				 name, c->host);
	return rc;
}

static int parse_name(struct nbd_config *c, const char *name, struct error *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(schemes); i++)
		if (!strncasecmp(name, schemes[i].prefix, strlen(schemes[i].prefix)))
			return parse_uri(c, name, &schemes[i], err);
	if (!strncasecmp(name, "nbd:", 4) && name[4] != '/')
		return parse_old_form(c, name, err);
	return error_set(err, EINVAL,
			 "'%s' is no NBD address; write nbd://HOST[:PORT]/EXPORT or "
			 "nbd+unix:///EXPORT?socket=PATH",
			 name);
}

/* ---- Properties ---- */

const char *nbd_opts_prefix(const struct opts *opts)
{
	const char *prefix = NULL;
	for (size_t i = 0; opts && i < opts->count; i++) {
		const struct opt *o = &opts->item[i];
		if (!strcmp(o->key, "driver") || !strcmp(o->key, "format"))
			prefix = !strcmp(o->value, "nbd") && !prefix ? "" : prefix;
		else if (!strcmp(o->key, "file.driver"))
			prefix = !strcmp(o->value, "nbd") ? "file." : prefix;
	}
	return prefix;
}

bool nbd_opts_have_server(const struct opts *opts, const char *prefix)
{
	static const char *const keys[] = {"host", "path", "server.host", "server.path"};
	size_t len = strlen(prefix);
	for (size_t i = 0; i < opts->count; i++)
		for (size_t k = 0; k < ARRAY_SIZE(keys); k++)
			if (!strncmp(opts->item[i].key, prefix, len) &&
			    !strcmp(opts->item[i].key + len, keys[k]))
				return true;
	return false;
}

struct properties {
	struct opts *opts;
	const char *prefix;
};

/* The value of a key, with the prefix before it, or NULL. */
static const char *get(const struct properties *p, const char *key)
{
	char full[64];
	snprintf(full, sizeof(full), "%s%s", p->prefix, key);
	return opts_get(p->opts, full);
}

static int get_seconds(const struct properties *p, const char *key, unsigned *out,
		       struct error *err)
{
	char full[64];
	uint64_t value = *out;
	snprintf(full, sizeof(full), "%s%s", p->prefix, key);
	int rc = opts_get_u64(p->opts, full, &value, err);
	if (rc == 0 && value > 1000000)
		rc = error_set(err, ERANGE, "%s=%llu: at most 1000000 seconds", full,
			       (unsigned long long)value);
	*out = (unsigned)value;
	return rc;
}

static int parse_properties(struct nbd_config *c, const struct properties *p, struct error *err)
{
	static const struct {
		const char *key, *other;
		size_t member;
	} strings[] = {
		{"host", "server.host", offsetof(struct nbd_config, host)},
		{"port", "server.port", offsetof(struct nbd_config, port)},
		{"path", "server.path", offsetof(struct nbd_config, socket)},
		{"export", NULL, offsetof(struct nbd_config, export)},
		{"tls-creds", NULL, offsetof(struct nbd_config, tls_creds)},
		{"tls-hostname", NULL, offsetof(struct nbd_config, tls_hostname)},
		{"x-dirty-bitmap", NULL, offsetof(struct nbd_config, bitmap)},
	};
	const char *type = get(p, "server.type");
	for (size_t i = 0; i < ARRAY_SIZE(strings); i++) {
		const char *value = get(p, strings[i].key);
		const char *other = strings[i].other ? get(p, strings[i].other) : NULL;
		char **member = (char **)((char *)c + strings[i].member);
		if (value && other)
			return error_set(err, EINVAL, "give either %s= or %s=", strings[i].key,
					 strings[i].other);
		if (!value)
			value = other;
		if (value && *member)
			return error_set(err, EINVAL, "%s=%s: the address gives it already",
					 strings[i].key, value);
		if (value)
			*member = xstrdup(value);
	}
	get(p, "driver");
	if (type && strcmp(type, "inet") && strcmp(type, "unix"))
		return error_set(err, EINVAL, "server.type=%s: it must be inet or unix", type);
	if (type && (!strcmp(type, "inet") ? !c->host : !c->socket))
		return error_set(err, EINVAL, "server.type=%s needs server.%s=", type,
				 !strcmp(type, "inet") ? "host" : "path");
	int rc = get_seconds(p, "reconnect-delay", &c->reconnect_delay, err);
	return rc < 0 ? rc : get_seconds(p, "open-timeout", &c->open_timeout, err);
}

/* What every source of names must keep to. */
static int check(const struct nbd_config *c, struct error *err)
{
	if (c->host && c->socket)
		return error_set(err, EINVAL, "an NBD server has either a host or a socket path");
	if (!c->host && !c->socket)
		return error_set(
			err, EINVAL,
			"an NBD drive needs the server: host= or path= (of a unix socket)");
	if (c->port && !c->host)
		return error_set(err, EINVAL, "port= needs host=");
	if (strlen(c->export) > NBD_MAX_STRING)
		return error_set(err, EINVAL, "the export's name is longer than %d bytes",
				 NBD_MAX_STRING);
	if (c->bitmap && strlen(c->bitmap) > NBD_MAX_STRING)
		return error_set(err, EINVAL, "x-dirty-bitmap is longer than %d bytes",
				 NBD_MAX_STRING);
	if (c->socket && strlen(c->socket) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return error_set(err, ENAMETOOLONG, "socket path '%s' is longer than %zu bytes",
				 c->socket, sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
	if (c->tls_hostname && !c->tls)
		return error_set(err, EINVAL, "tls-hostname needs tls-creds");
	if (!c->tls && (c->tls_certificates || c->tls_psk_file))
		return error_set(err, EINVAL, "TLS files need an nbds: address");
	return 0;
}

int nbd_config_parse(struct nbd_config *c, const char *name, struct opts *opts, const char *prefix,
		     struct error *err)
{
	struct properties p = {opts, prefix};
	int rc = name ? parse_name(c, name, err) : 0;
	if (rc == 0 && opts)
		rc = parse_properties(c, &p, err);
	if (rc == 0) {
		if (c->tls_creds)
			c->tls = true;
		if (!c->export)
			c->export = xstrdup("");
		if (c->host && !c->port)
			c->port = xasprintf("%d", NBD_PORT);
		rc = check(c, err);
	}
	if (rc < 0)
		nbd_config_free(c);
	return rc;
}

int nbd_describe(const char *file, struct opts *opts, char **name, struct error *err)
{
	const char *prefix = nbd_opts_prefix(opts);
	struct nbd_config config = {0};
	bool addressed = file && nbd_is_name(file);
	if (file && !addressed && prefix)
		return error_set(err, EINVAL,
				 "'%s' is no NBD address; leave file= out, or driver=nbd", file);
	if (!addressed && !prefix)
		return 0;
	int rc = nbd_config_parse(&config, addressed ? file : NULL, opts, prefix ? prefix : "file.",
				  err);
	if (rc < 0)
		return rc;
	*name = addressed ? xstrdup(file) : nbd_config_uri(&config);
	nbd_config_free(&config);
	return 1;
}

/* Appends with everything but letters, digits and a few signs as %XX. */
static void encode(struct strbuf *sb, const char *text, const char *plain)
{
	for (; *text; text++) {
		if (isalnum((unsigned char)*text) || strchr(plain, *text))
			strbuf_append(sb, text, 1);
		else
			strbuf_printf(sb, "%%%02X", (unsigned char)*text);
	}
}

char *nbd_config_uri(const struct nbd_config *c)
{
	struct strbuf sb = STRBUF_INIT;
	strbuf_printf(&sb, "nbd%s%s://", c->tls ? "s" : "", c->socket ? "+unix" : "");
	if (c->host) {
		strbuf_printf(&sb, strchr(c->host, ':') ? "[%s]" : "%s", c->host);
		if (strcmp(c->port, "10809"))
			strbuf_printf(&sb, ":%s", c->port);
	}
	if (*c->export || c->socket) {
		strbuf_puts(&sb, "/");
		encode(&sb, c->export, "-._~/:@");
	}
	if (c->socket) {
		strbuf_puts(&sb, "?socket=");
		encode(&sb, c->socket, "-._~/:@");
	}
	return strbuf_steal(&sb);
}
