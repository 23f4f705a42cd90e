/* SPDX-License-Identifier: MIT */
/*
 * TLS over a connected socket, for clients and servers, by GnuTLS. Credentials are objects that the
 * user makes with -object tls-creds-x509, tls-creds-psk or tls-creds-anon (lib/object.h); the
 * directory layout and the properties are QEMU's.
 *
 * Built without GnuTLS everything is here, but making credentials fails with a sentence.
 */
#ifndef LIB_TLS_H
#define LIB_TLS_H

#include "lib/error.h"
#include "lib/object.h"
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Rows for a program's table of object types. */
extern const struct object_type tls_creds_x509_type, tls_creds_psk_type, tls_creds_anon_type;

struct tls_creds;
struct tls_session;

enum tls_endpoint { TLS_CLIENT, TLS_SERVER };

/* A client's credentials without an object, as an nbds: address asks for them: the key of `user` in
 * a PSK file, a directory of certificates, or with both NULL the CAs that the system trusts. A
 * reference as below, NULL with a sentence. */
struct tls_creds *tls_creds_for_client(const char *certificates, const char *psk_file,
				       const char *user, struct error *err);
/* The credentials with this id, which must be for this end. A reference of the caller, for
 * tls_creds_unref(); they stay usable when the object is deleted. NULL with a sentence. */
struct tls_creds *tls_creds_find(const char *id, enum tls_endpoint endpoint, struct error *err);
struct tls_creds *tls_creds_ref(struct tls_creds *creds);
/* NULL does nothing. */
void tls_creds_unref(struct tls_creds *creds);
/* True for tls-creds-x509, whose client checks the server's name. */
bool tls_creds_have_names(const struct tls_creds *creds);

/*
 * A session on `fd`, a stream socket that the caller keeps and that must be non-blocking. The
 * session holds a reference to its credentials. `hostname` (client, x509) is what the server's
 * certificate must be for; NULL: only its chain is checked. NULL with a sentence.
 */
struct tls_session *tls_session_new(struct tls_creds *creds, int fd, const char *hostname,
				    struct error *err);
/*
 * Shakes hands, checks the peer's certificate, and waits at most timeout_ms (-1: for ever) for all
 * of it; -ETIMEDOUT then. Nothing is read or written before it has returned 0.
 */
int tls_handshake(struct tls_session *s, int timeout_ms, struct error *err);

/*
 * As recv() and send() on a non-blocking socket: bytes moved, 0 at the end of the stream, or
 * -errno. -EAGAIN: poll for the socket to become readable or writable; a write must then be
 * repeated with the same bytes. A stream that ends without TLS' own farewell is -ECONNRESET. One
 * thread may read while another writes.
 */
ssize_t tls_read(struct tls_session *s, void *buf, size_t len);
ssize_t tls_write(struct tls_session *s, const void *buf, size_t len);
/* True if tls_read() has data although the socket may not be readable. */
bool tls_pending(struct tls_session *s);
/* Says farewell, without waiting. */
void tls_bye(struct tls_session *s);
/* NULL does nothing; the socket stays open. */
void tls_session_free(struct tls_session *s);

#endif
