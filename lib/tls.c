/* SPDX-License-Identifier: MIT */
/*
 * TLS sessions (tls.h): a GnuTLS session on a non-blocking socket.
 *
 * GnuTLS allows one thread to receive and another to send on one session. Its poll loop in the
 * handshake is here; afterwards the caller polls.
 */
#include "lib/tls.h"
#include "lib/tls_internal.h"
#include <errno.h>
#include <stddef.h>

#ifdef HAVE_GNUTLS
#include "lib/clock.h"
#include "lib/text.h"
#include <arpa/inet.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

struct tls_session {
	struct tls_creds *creds;
	gnutls_session_t gnutls;
	int fd;
	char *hostname;
	bool established;
};

/* "127.0.0.1" and "::1": no name for SNI, RFC 6066, section 3. */
static bool is_address(const char *name)
{
	unsigned char buf[sizeof(struct in6_addr)];
	return inet_pton(AF_INET, name, buf) == 1 || inet_pton(AF_INET6, name, buf) == 1;
}

static int attach_credentials(struct tls_session *s)
{
	const struct tls_creds *c = s->creds;
	bool server = c->endpoint == TLS_SERVER;
	switch (c->kind) {
	case TLS_X509:
		if (server)
			gnutls_certificate_server_set_request(s->gnutls,
							      c->verify_peer ? GNUTLS_CERT_REQUIRE
									     : GNUTLS_CERT_IGNORE);
		if (c->verify_peer)
			gnutls_session_set_verify_cert(s->gnutls, s->hostname, 0);
		return gnutls_credentials_set(s->gnutls, GNUTLS_CRD_CERTIFICATE, c->x509);
	case TLS_PSK:
		return gnutls_credentials_set(s->gnutls, GNUTLS_CRD_PSK,
					      server ? (void *)c->psk_server
						     : (void *)c->psk_client);
	default:
		return gnutls_credentials_set(s->gnutls, GNUTLS_CRD_ANON,
					      server ? (void *)c->anon_server
						     : (void *)c->anon_client);
	}
}

/* A peer that is gone must not raise SIGPIPE. */
static ssize_t push(gnutls_transport_ptr_t opaque, const void *buf, size_t len)
{
	const struct tls_session *s = opaque;
	ssize_t n = send(s->fd, buf, len, MSG_NOSIGNAL);
	if (n < 0)
		gnutls_transport_set_errno(s->gnutls, errno);
	return n;
}

static ssize_t pull(gnutls_transport_ptr_t opaque, void *buf, size_t len)
{
	const struct tls_session *s = opaque;
	ssize_t n = recv(s->fd, buf, len, 0);
	if (n < 0)
		gnutls_transport_set_errno(s->gnutls, errno);
	return n;
}

struct tls_session *tls_session_new(struct tls_creds *creds, int fd, const char *hostname,
				    struct error *err)
{
	struct tls_session *s = xcalloc(1, sizeof(*s));
	bool server = creds->endpoint == TLS_SERVER;
	s->creds = tls_creds_ref(creds);
	s->fd = fd;
	s->hostname = hostname ? xstrdup(hostname) : NULL;
	int rc =
		gnutls_init(&s->gnutls, (server ? GNUTLS_SERVER : GNUTLS_CLIENT) | GNUTLS_NONBLOCK);
	if (rc >= 0)
		rc = gnutls_priority_set_direct(s->gnutls, creds->priority, NULL);
	if (rc >= 0)
		rc = attach_credentials(s);
	if (rc >= 0 && !server && s->hostname && !is_address(s->hostname))
		rc = gnutls_server_name_set(s->gnutls, GNUTLS_NAME_DNS, s->hostname,
					    strlen(s->hostname));
	if (rc < 0) {
		error_set(err, EIO, "cannot make a TLS session: %s", gnutls_strerror(rc));
		tls_session_free(s);
		return NULL;
	}
	gnutls_transport_set_ptr(s->gnutls, s);
	gnutls_transport_set_push_function(s->gnutls, push);
	gnutls_transport_set_pull_function(s->gnutls, pull);
	gnutls_handshake_set_timeout(s->gnutls, GNUTLS_INDEFINITE_TIMEOUT);
	return s;
}

static int64_t now_ms(void)
{
	return (int64_t)(host_clock_ns() / (NS_PER_SEC / 1000));
}

/* Why the handshake failed, as a sentence. */
static int handshake_failed(struct tls_session *s, int code, struct error *err)
{
	const char *peer = s->creds->endpoint == TLS_SERVER ? "client" : "server";
	if (code == GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR) {
		unsigned status = gnutls_session_get_verify_cert_status(s->gnutls);
		gnutls_datum_t text = {0};
		if (status & GNUTLS_CERT_UNEXPECTED_OWNER && s->hostname)
			return error_set(err, EACCES,
					 "the server's certificate is not for '%s'; tls-hostname= "
					 "names the host that it is for",
					 s->hostname);
		if (gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text,
								 0) >= 0) {
			/* Several sentences, each with its full stop and a space behind. */
			for (unsigned n = text.size; n && strchr(". ", text.data[n - 1]); n--)
				text.data[n - 1] = 0;
			error_set(err, EACCES, "the %s's certificate was refused: %s", peer,
				  (const char *)text.data);
			gnutls_free(text.data);
			return -EACCES;
		}
	}
	if (code == GNUTLS_E_FATAL_ALERT_RECEIVED) {
		const char *alert = gnutls_alert_get_name(gnutls_alert_get(s->gnutls));
		return error_set(err, EACCES, "the %s refused the TLS handshake: %s", peer,
				 alert ? alert : "unknown alert");
	}
	return error_set(err, EIO, "the TLS handshake with the %s failed: %s", peer,
			 gnutls_strerror(code));
}

int tls_handshake(struct tls_session *s, int timeout_ms, struct error *err)
{
	int64_t deadline = timeout_ms < 0 ? INT64_MAX : now_ms() + timeout_ms;
	for (;;) {
		int rc = gnutls_handshake(s->gnutls);
		if (rc == GNUTLS_E_SUCCESS) {
			s->established = true;
			return 0;
		}
		if (rc != GNUTLS_E_AGAIN && gnutls_error_is_fatal(rc)) {
			/* Tell the peer why, so that its message can. */
			gnutls_alert_send_appropriate(s->gnutls, rc);
			return handshake_failed(s, rc, err);
		}
		if (rc != GNUTLS_E_AGAIN)
			continue;
		struct pollfd p = {.fd = s->fd,
				   .events = gnutls_record_get_direction(s->gnutls) ? POLLOUT
										    : POLLIN};
		int64_t left = deadline == INT64_MAX ? -1 : deadline - now_ms();
		if (deadline != INT64_MAX && left <= 0)
			return error_set(err, ETIMEDOUT,
					 "the TLS handshake was not complete within %d seconds",
					 timeout_ms / 1000);
		poll(&p, 1, (int)left);
	}
}

static ssize_t moved(ssize_t n)
{
	if (n >= 0)
		return n;
	switch (n) {
	case GNUTLS_E_AGAIN: return -EAGAIN;
	case GNUTLS_E_INTERRUPTED: return -EINTR;
	case GNUTLS_E_PREMATURE_TERMINATION: return -ECONNRESET;
	case GNUTLS_E_PULL_ERROR:
	case GNUTLS_E_PUSH_ERROR: return -EPIPE;
	default: return -EIO;
	}
}

ssize_t tls_read(struct tls_session *s, void *buf, size_t len)
{
	ssize_t n;
	/* Rekeying and new session tickets come between the data. */
	do
		n = gnutls_record_recv(s->gnutls, buf, len);
	while (n < 0 && n != GNUTLS_E_AGAIN && !gnutls_error_is_fatal((int)n));
	return moved(n);
}

ssize_t tls_write(struct tls_session *s, const void *buf, size_t len)
{
	ssize_t n;
	do
		n = gnutls_record_send(s->gnutls, buf, len);
	while (n < 0 && n != GNUTLS_E_AGAIN && !gnutls_error_is_fatal((int)n));
	return moved(n);
}

bool tls_pending(struct tls_session *s)
{
	return gnutls_record_check_pending(s->gnutls) > 0;
}

void tls_bye(struct tls_session *s)
{
	if (s->established)
		gnutls_bye(s->gnutls, GNUTLS_SHUT_WR);
}

void tls_session_free(struct tls_session *s)
{
	if (!s)
		return;
	if (s->gnutls)
		gnutls_deinit(s->gnutls);
	tls_creds_unref(s->creds);
	free(s->hostname);
	free(s);
}
#else
/* Without credentials, which cannot be made, there are no sessions. */
struct tls_session *tls_session_new(struct tls_creds *creds, int fd, const char *hostname,
				    struct error *err)
{
	error_set(err, ENOTSUP, "TLS needs GnuTLS, which this minivm is built without");
	return NULL;
}

int tls_handshake(struct tls_session *s, int timeout_ms, struct error *err)
{
	return error_set(err, ENOTSUP, "TLS needs GnuTLS, which this minivm is built without");
}

ssize_t tls_read(struct tls_session *s, void *buf, size_t len)
{
	return -ENOTSUP;
}

ssize_t tls_write(struct tls_session *s, const void *buf, size_t len)
{
	return -ENOTSUP;
}

bool tls_pending(struct tls_session *s)
{
	return false;
}

void tls_bye(struct tls_session *s)
{
}

void tls_session_free(struct tls_session *s)
{
}
#endif
