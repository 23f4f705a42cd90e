/* SPDX-License-Identifier: MIT */
/* What credentials (tls_creds.c) and sessions (tls.c) share. */
#ifndef LIB_TLS_INTERNAL_H
#define LIB_TLS_INTERNAL_H

#include "lib/tls.h"

enum tls_kind { TLS_X509, TLS_PSK, TLS_ANON };

#ifdef HAVE_GNUTLS
#include <gnutls/gnutls.h>

struct tls_creds {
	unsigned references; /* atomic */
	enum tls_kind kind;
	enum tls_endpoint endpoint;
	bool verify_peer;
	char *priority; /* a GnuTLS priority string, complete */
	/* By kind and endpoint one of: */
	gnutls_certificate_credentials_t x509;
	gnutls_psk_client_credentials_t psk_client;
	gnutls_psk_server_credentials_t psk_server;
	gnutls_anon_client_credentials_t anon_client;
	gnutls_anon_server_credentials_t anon_server;
	gnutls_dh_params_t dh; /* which the credentials point to, or NULL */
};
#endif

#endif
