/* SPDX-License-Identifier: MIT */
/*
 * TLS credentials (tls.h). A directory holds what one end needs, under QEMU's file names:
 *
 *   tls-creds-x509  ca-cert.pem, ca-crl.pem (may be missing), and server-cert.pem, server-key.pem
 *                   or client-cert.pem, client-key.pem (a client may have none)
 *   tls-creds-psk   keys.psk: lines "username:key in hexadecimal" (psktool makes them)
 *   tls-creds-anon  nothing: encryption without knowing the peer
 *
 * verify-peer=yes (the default) makes a client check the server's certificate, and a server ask
 * for the client's and refuse those who have none that the CA signed.
 *
 * Diffie-Hellman parameters are those of RFC 7919, which GnuTLS has built in; a dh-params.pem in
 * the directory is used by servers as QEMU does.
 */
#include "lib/text.h"
#include "lib/tls_internal.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef HAVE_GNUTLS
#include "lib/bytes.h"
#include "lib/secret.h"
#include <gnutls/x509.h>
#include <time.h>

enum { MAX_FILE = 1024 * 1024, MAX_CERTS = 16 };

struct files {
	const char *dir;
	char *path; /* of the file that is being looked at */
};

static void creds_free(struct tls_creds *c)
{
	if (c->x509)
		gnutls_certificate_free_credentials(c->x509);
	if (c->psk_client)
		gnutls_psk_free_client_credentials(c->psk_client);
	if (c->psk_server)
		gnutls_psk_free_server_credentials(c->psk_server);
	if (c->anon_client)
		gnutls_anon_free_client_credentials(c->anon_client);
	if (c->anon_server)
		gnutls_anon_free_server_credentials(c->anon_server);
	if (c->dh)
		gnutls_dh_params_deinit(c->dh);
	free(c->priority);
	free(c);
}

struct tls_creds *tls_creds_ref(struct tls_creds *c)
{
	__atomic_add_fetch(&c->references, 1, __ATOMIC_RELAXED);
	return c;
}

void tls_creds_unref(struct tls_creds *c)
{
	if (c && __atomic_sub_fetch(&c->references, 1, __ATOMIC_ACQ_REL) == 0)
		creds_free(c);
}

bool tls_creds_have_names(const struct tls_creds *c)
{
	return c->kind == TLS_X509;
}

/* The path of a file of the directory in f->path. `needed`: -ENOENT with a sentence if missing;
 * otherwise 1 says that it is there, 0 that it is not. */
static int locate(struct files *f, const char *name, bool needed, struct error *err)
{
	free(f->path);
	f->path = xasprintf("%s/%s", f->dir, name);
	if (access(f->path, R_OK) == 0)
		return 1;
	if (errno == ENOENT && !needed)
		return 0;
	return error_errno(err, errno, "cannot read '%s'", f->path);
}

static int gnutls_failed(struct error *err, const char *what, int code)
{
	return error_set(err, EINVAL, "%s: %s", what, gnutls_strerror(code));
}

/* A certificate that has expired, or is not valid yet, would be refused by every peer: say so at
 * the start. */
static int check_times(const char *path, struct error *err)
{
	size_t len;
	void *text = read_file(path, MAX_FILE, &len, err);
	if (!text)
		return -(err && err->code ? err->code : EIO);
	gnutls_datum_t datum = {text, (unsigned)len};
	gnutls_x509_crt_t certs[MAX_CERTS];
	unsigned count = MAX_CERTS;
	int rc = gnutls_x509_crt_list_import(certs, &count, &datum, GNUTLS_X509_FMT_PEM, 0);
	free(text);
	if (rc < 0)
		return gnutls_failed(err, path, rc);
	time_t now = time(NULL);
	rc = 0;
	for (unsigned n = 0; n < count; n++) {
		if (!rc && gnutls_x509_crt_get_expiration_time(certs[n]) < now)
			rc = error_set(err, EINVAL, "the certificate in '%s' has expired", path);
		if (!rc && gnutls_x509_crt_get_activation_time(certs[n]) > now)
			rc = error_set(err, EINVAL, "the certificate in '%s' is not valid yet",
				       path);
		gnutls_x509_crt_deinit(certs[n]);
	}
	return rc;
}

static int load_dh_params(struct tls_creds *c, struct files *f, struct error *err)
{
	int there = locate(f, "dh-params.pem", false, err);
	if (there <= 0)
		return there;
	size_t len;
	void *text = read_file(f->path, MAX_FILE, &len, err);
	if (!text)
		return -(err && err->code ? err->code : EIO);
	gnutls_datum_t datum = {text, (unsigned)len};
	int rc = gnutls_dh_params_init(&c->dh);
	if (rc >= 0)
		rc = gnutls_dh_params_import_pkcs3(c->dh, &datum, GNUTLS_X509_FMT_PEM);
	free(text);
	if (rc < 0)
		return gnutls_failed(err, f->path, rc);
	if (c->x509)
		gnutls_certificate_set_dh_params(c->x509, c->dh);
	else if (c->psk_server)
		gnutls_psk_set_server_dh_params(c->psk_server, c->dh);
	else
		gnutls_anon_set_server_dh_params(c->anon_server, c->dh);
	return 0;
}

static int load_x509(struct tls_creds *c, struct files *f, const char *password, bool sanity,
		     struct error *err)
{
	bool server = c->endpoint == TLS_SERVER;
	int rc = gnutls_certificate_allocate_credentials(&c->x509);
	if (rc < 0)
		return gnutls_failed(err, "cannot make credentials", rc);
	/* A client that verifies nobody needs no CA. */
	int there = locate(f, "ca-cert.pem", server || c->verify_peer, err);
	if (there < 0)
		return there;
	if (there) {
		if (sanity && (rc = check_times(f->path, err)) < 0)
			return rc;
		rc = gnutls_certificate_set_x509_trust_file(c->x509, f->path, GNUTLS_X509_FMT_PEM);
		if (rc < 0)
			return gnutls_failed(err, f->path, rc);
	}
	if ((there = locate(f, "ca-crl.pem", false, err)) < 0)
		return there;
	if (there &&
	    (rc = gnutls_certificate_set_x509_crl_file(c->x509, f->path, GNUTLS_X509_FMT_PEM)) < 0)
		return gnutls_failed(err, f->path, rc);
	there = locate(f, server ? "server-cert.pem" : "client-cert.pem", server, err);
	if (there <= 0)
		return there;
	if (sanity && (rc = check_times(f->path, err)) < 0)
		return rc;
	char *cert = xstrdup(f->path);
	rc = locate(f, server ? "server-key.pem" : "client-key.pem", true, err);
	if (rc > 0) {
		rc = gnutls_certificate_set_x509_key_file2(c->x509, cert, f->path,
							   GNUTLS_X509_FMT_PEM, password, 0);
		if (rc == GNUTLS_E_DECRYPTION_FAILED)
			rc = error_set(err, EACCES,
				       "'%s' is encrypted; give its password with "
				       "-object secret and passwordid=",
				       f->path);
		else if (rc < 0)
			rc = error_set(err, EINVAL, "'%s' and '%s': %s", cert, f->path,
				       gnutls_strerror(rc));
	}
	free(cert);
	return rc < 0 ? rc : 0;
}

/* The key of `user` in keys.psk, malloc'ed hexadecimal, or NULL. */
static char *find_psk(const char *path, const char *user, struct error *err)
{
	size_t len, user_len = strlen(user);
	char *text = read_file(path, MAX_FILE, &len, err), *key = NULL;
	if (!text)
		return NULL;
	for (char *line = text; *line && !key;) {
		size_t n = strcspn(line, "\r\n");
		if (n > user_len && line[user_len] == ':' && !memcmp(line, user, user_len)) {
			key = xcalloc(1, n - user_len);
			memcpy(key, line + user_len + 1, n - user_len - 1);
		}
		line += n;
		line += strspn(line, "\r\n");
	}
	explicit_bzero(text, len);
	free(text);
	if (!key)
		error_set(err, ENOENT, "there is no key of user '%s' in '%s'", user, path);
	return key;
}

static int load_psk_client(struct tls_creds *c, const char *path, const char *user,
			   struct error *err)
{
	char *key = find_psk(path, user, err);
	if (!key)
		return -(err && err->code ? err->code : ENOENT);
	gnutls_datum_t datum = {(unsigned char *)key, (unsigned)strlen(key)};
	int rc = gnutls_psk_allocate_client_credentials(&c->psk_client);
	if (rc >= 0)
		rc = gnutls_psk_set_client_credentials(c->psk_client, user, &datum,
						       GNUTLS_PSK_KEY_HEX);
	explicit_bzero(key, strlen(key));
	free(key);
	return rc < 0 ? gnutls_failed(err, path, rc) : 0;
}

static int load_psk(struct tls_creds *c, struct files *f, const char *user, struct error *err)
{
	int rc = locate(f, "keys.psk", true, err);
	if (rc < 0)
		return rc;
	if (c->endpoint == TLS_CLIENT)
		return load_psk_client(c, f->path, user, err);
	rc = gnutls_psk_allocate_server_credentials(&c->psk_server);
	if (rc >= 0)
		rc = gnutls_psk_set_server_credentials_file(c->psk_server, f->path);
	return rc < 0 ? gnutls_failed(err, f->path, rc) : 0;
}

static int load_anon(struct tls_creds *c, struct error *err)
{
	int rc = c->endpoint == TLS_SERVER
			 ? gnutls_anon_allocate_server_credentials(&c->anon_server)
			 : gnutls_anon_allocate_client_credentials(&c->anon_client);
	return rc < 0 ? gnutls_failed(err, "cannot make credentials", rc) : 0;
}

/* The user's priority= and what the kind of credentials needs besides. */
static char *complete_priority(enum tls_kind kind, const char *priority)
{
	static const char *const additions[] = {
		[TLS_X509] = "",
		[TLS_PSK] = ":+ECDHE-PSK:+DHE-PSK:+PSK",
		[TLS_ANON] = ":+ANON-ECDH:+ANON-DH",
	};
	return xasprintf("%s%s", priority ? priority : "NORMAL", additions[kind]);
}

static int load(struct tls_creds *c, struct files *f, struct opts *opts, struct error *err)
{
	static const char *const endpoints[] = {"client", "server", NULL};
	int endpoint = TLS_CLIENT, rc;
	bool sanity = true;
	const char *user = "qemu";
	char *password = NULL;
	if ((rc = opts_get_enum(opts, "endpoint", endpoints, &endpoint, err)) < 0 ||
	    (rc = opts_get_bool(opts, "verify-peer", &c->verify_peer, err)) < 0)
		return rc;
	c->endpoint = (enum tls_endpoint)endpoint;
	c->priority = complete_priority(c->kind, opts_get(opts, "priority"));
	gnutls_priority_t parsed;
	const char *where = NULL;
	rc = gnutls_priority_init(&parsed, c->priority, &where);
	if (rc < 0)
		return error_set(err, EINVAL, "priority: GnuTLS does not understand '%s'",
				 where ? where : c->priority);
	gnutls_priority_deinit(parsed);
	f->dir = opts_get(opts, "dir");
	if (!f->dir && c->kind != TLS_ANON)
		return error_set(err, EINVAL, "it needs dir=, the directory with the %s",
				 c->kind == TLS_PSK ? "file keys.psk" : "certificates");
	switch (c->kind) {
	case TLS_X509:
		if ((rc = opts_get_bool(opts, "sanity-check", &sanity, err)) < 0)
			return rc;
		const char *secret = opts_get(opts, "passwordid");
		size_t len;
		if (secret && !(password = secret_copy(secret, &len, err)))
			return -(err && err->code ? err->code : ENOENT);
		rc = load_x509(c, f, password, sanity, err);
		if (password)
			explicit_bzero(password, len);
		free(password);
		break;
	case TLS_PSK:
		if (opts_has(opts, "username"))
			user = opts_get(opts, "username");
		rc = load_psk(c, f, user, err);
		break;
	default: rc = load_anon(c, err); break;
	}
	if (rc == 0 && c->endpoint == TLS_SERVER && f->dir)
		rc = load_dh_params(c, f, err);
	return rc;
}

static void *create(enum tls_kind kind, struct opts *opts, struct error *err)
{
	struct files files = {0};
	struct tls_creds *c = xcalloc(1, sizeof(*c));
	*c = (struct tls_creds){.references = 1, .kind = kind, .verify_peer = true};
	int rc = load(c, &files, opts, err);
	free(files.path);
	if (rc < 0) {
		creds_free(c);
		return NULL;
	}
	return c;
}

static int load_for_client(struct tls_creds *c, const char *certificates, const char *psk_file,
			   const char *user, struct files *f, struct error *err)
{
	c->priority = complete_priority(c->kind, NULL);
	if (psk_file)
		return load_psk_client(c, psk_file, user ? user : "qemu", err);
	f->dir = certificates;
	if (certificates)
		return load_x509(c, f, NULL, true, err);
	int rc = gnutls_certificate_allocate_credentials(&c->x509);
	if (rc >= 0)
		rc = gnutls_certificate_set_x509_system_trust(c->x509);
	return rc < 0 ? gnutls_failed(err, "cannot load the system's certificate authorities", rc)
		      : 0;
}

struct tls_creds *tls_creds_for_client(const char *certificates, const char *psk_file,
				       const char *user, struct error *err)
{
	struct files files = {0};
	struct tls_creds *c = xcalloc(1, sizeof(*c));
	*c = (struct tls_creds){
		.references = 1, .kind = psk_file ? TLS_PSK : TLS_X509, .verify_peer = true};
	int rc = load_for_client(c, certificates, psk_file, user, &files, err);
	free(files.path);
	if (rc < 0) {
		creds_free(c);
		return NULL;
	}
	return c;
}
#else
struct tls_creds {
	char unused;
};

struct tls_creds *tls_creds_for_client(const char *certificates, const char *psk_file,
				       const char *user, struct error *err)
{
	error_set(err, ENOTSUP, "TLS needs GnuTLS, which this minivm is built without");
	return NULL;
}

struct tls_creds *tls_creds_ref(struct tls_creds *c)
{
	return c;
}

void tls_creds_unref(struct tls_creds *c)
{
}

bool tls_creds_have_names(const struct tls_creds *c)
{
	return false;
}

static void *create(enum tls_kind kind, struct opts *opts, struct error *err)
{
	error_set(err, ENOTSUP, "TLS needs GnuTLS, which this minivm is built without");
	return NULL;
}
#endif

static void *create_x509(void *context, const char *id, struct opts *opts, struct error *err)
{
	return create(TLS_X509, opts, err);
}

static void *create_psk(void *context, const char *id, struct opts *opts, struct error *err)
{
	return create(TLS_PSK, opts, err);
}

static void *create_anon(void *context, const char *id, struct opts *opts, struct error *err)
{
	return create(TLS_ANON, opts, err);
}

static void unref(void *object)
{
	tls_creds_unref(object);
}

const struct object_type tls_creds_x509_type = {
	.name = "tls-creds-x509",
	.help = "dir=PATH, endpoint=client|server, verify-peer=on|off, priority=TEXT,\n"
		"                     passwordid=SECRET, sanity-check=on|off",
	.create = create_x509,
	.free = unref,
};

const struct object_type tls_creds_psk_type = {
	.name = "tls-creds-psk",
	.help = "dir=PATH, endpoint=client|server, username=NAME, priority=TEXT",
	.create = create_psk,
	.free = unref,
};

const struct object_type tls_creds_anon_type = {
	.name = "tls-creds-anon",
	.help = "endpoint=client|server, priority=TEXT",
	.create = create_anon,
	.free = unref,
};

static int take_reference(void *object, void *opaque)
{
	*(struct tls_creds **)opaque = tls_creds_ref(object);
	return 0;
}

struct tls_creds *tls_creds_find(const char *id, enum tls_endpoint endpoint, struct error *err)
{
	static const struct object_type *const kinds[] = {&tls_creds_x509_type, &tls_creds_psk_type,
							  &tls_creds_anon_type};
	struct tls_creds *c = NULL;
	int rc = 0;
	for (size_t n = 0; n < sizeof(kinds) / sizeof(kinds[0]) && !c; n++) {
		struct error why = ERROR_INIT;
		rc = object_use(id, kinds[n], take_reference, &c, &why);
		if (rc == -ENOENT) {
			error_set(err, ENOENT, "tls-creds=%s: %s", id, why.text);
			return NULL;
		}
	}
	if (!c) {
		error_set(err, EINVAL, "tls-creds=%s: that object has no TLS credentials", id);
		return NULL;
	}
#ifdef HAVE_GNUTLS
	if (c->endpoint != endpoint) {
		error_set(err, EINVAL,
			  "tls-creds=%s: it has endpoint=%s, but endpoint=%s is needed", id,
			  c->endpoint == TLS_SERVER ? "server" : "client",
			  endpoint == TLS_SERVER ? "server" : "client");
		tls_creds_unref(c);
		return NULL;
	}
#endif
	return c;
}
