// SPDX-License-Identifier: BSD-2-Clause
// Contexts of OpenSSL for a listener (server.h): one for each set of certificates that some name has, chosen
// by the name that the client asks for. Reading PEM and the errors about it are pem.c's, names are names.c's.
#include "tls/server.h"

#include "base/log.h"
#include "tls/context.h"
#include "tls/key_log.h"
#include "tls/names.h"
#include "tls/pem.h"
#include "tls/sessions.h"
#include "tls/staple.h"
#include "tls/stream_impl.h"
#include "tls/tickets.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>

enum { ALPN_MAX = 255, EARLY_MAX = 16384 };

// The certificates of some names, of different kinds of key, with their context.
struct tls_site {
    struct tls_site *next;
    SSL_CTX *ctx;
    unsigned count;
    const struct pem_pair *pairs[PEM_KINDS];
};

struct tls_server {
    unsigned refs;
    const struct conf *conf;     // while it is made
    const struct conf_tls *tls;  // likewise
    struct tls_site *sites;      // the first is for who asks for no name
    struct names *names;         // to a struct tls_site
    bool strict, early_data;
    unsigned char alpn[ALPN_MAX + 1];  // as on the wire
    unsigned alpn_len;
    struct staples staples;
    struct key_log *key_log;     // NULL: none
    struct ticket_ring tickets;  // without keys: the master's are used
    unsigned char session_context[SSL_MAX_SID_CTX_LENGTH];
};

// ---- what clients ask for ---------------------------------------------------------------------------------

static struct tls_site *find_site(const struct tls_server *server, const char *name) {
    return names_find(server->names, slice_of(name));
}

void *tls_server_site(const struct tls_server *server, struct slice name) {
    return names_find(server->names, name);
}

static int on_server_name(SSL *ssl, int *alert, void *arg) {
    const struct tls_server *server = arg;
    const struct tls_stream *stream = tls_stream_of(SSL_get_app_data(ssl));
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    if (!name && !stream->chosen)
        return SSL_TLSEXT_ERR_NOACK;
    const struct tls_site *site = stream->chosen ? stream->chosen : find_site(server, name);
    if (!site && server->strict) {
        *alert = SSL_AD_UNRECOGNIZED_NAME;
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    if (site && !SSL_set_SSL_CTX(ssl, site->ctx)) {
        *alert = SSL_AD_INTERNAL_ERROR;
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    return site ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}

static int on_alpn(SSL *ssl, const unsigned char **ret, unsigned char *ret_len, const unsigned char *offered,
                   unsigned offered_len, void *arg) {
    const struct tls_server *server = arg;
    unsigned char *chosen;
    (void)ssl;
    if (SSL_select_next_proto(&chosen, ret_len, server->alpn, server->alpn_len, offered, offered_len) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;  // RFC 7301, 3.2: no_application_protocol
    *ret = chosen;
    return SSL_TLSEXT_ERR_OK;
}

// ---- making it --------------------------------------------------------------------------------------------

static int fail(const struct tls_server *server, struct conf_place place, struct error *error,
                const char *what) {
    return conf_error(server->conf, place, error, "%s: %s", what, context_reason());
}

static int set_alpn(struct tls_server *server, struct error *error) {
    const char *at = server->tls->alpn;
    while (*at) {
        size_t len = strcspn(at, " ");
        if (len > 255 || server->alpn_len + len + 1 > sizeof server->alpn)
            return conf_error(server->conf, server->tls->alpn_place, error,
                              "the protocols of \"alpn\" are too long");
        server->alpn[server->alpn_len++] = (unsigned char)len;
        memcpy(server->alpn + server->alpn_len, at, len);
        server->alpn_len += (unsigned)len;
        at += len + (at[len] == ' ');
    }
    return 0;
}

// Certificates, or lists of revoked ones, of all files go into the store.
static int add_to_store(const struct tls_server *server, SSL_CTX *ctx, const struct conf_file_text *file,
                        bool lists, struct error *error) {
    for (; file; file = file->next) {
        X509_STORE *store = SSL_CTX_get_cert_store(ctx);
        unsigned count = 0;
        int rc =
            lists ? pem_add_lists(store, file->text, &count) : pem_add_authorities(ctx, file->text, &count);
        if (rc < 0)
            return fail(server, file->place, error,
                        lists ? "bad list of revoked certificates" : "bad certificate");
        if (count == 0)
            return conf_error(server->conf, file->place, error, "no %s in \"%s\", expected some in PEM form",
                              lists ? "list of revoked certificates" : "certificate", file->path);
    }
    return 0;
}

static int set_client_verification(const struct tls_server *server, SSL_CTX *ctx, struct error *error) {
    const struct conf_tls *tls = server->tls;
    if (tls->verify_client == VERIFY_CLIENT_OFF)
        return 0;
    int rc = add_to_store(server, ctx, tls->client_ca, false, error);
    if (rc == 0)
        rc = add_to_store(server, ctx, tls->client_crl, true, error);
    if (rc < 0)
        return rc;
    // An authority that is no root is trusted as it is.
    unsigned long flags = X509_V_FLAG_PARTIAL_CHAIN;
    if (tls->client_crl)
        flags |= X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL;
    X509_STORE_set_flags(SSL_CTX_get_cert_store(ctx), flags);
    bool required = tls->verify_client == VERIFY_CLIENT_REQUIRED;
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | (required ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0), NULL);
    return 0;
}

static int use_pair(const struct tls_server *server, SSL_CTX *ctx, const struct pem_pair *pair,
                    struct error *error) {
    if (!SSL_CTX_use_cert_and_key(ctx, pair->certificate, pair->key, pair->chain, 1))
        return fail(server, pair->conf->place, error, "the certificate cannot be used");
    return 0;
}

static int context_new(struct tls_server *server, struct tls_site *site, struct error *error) {
    SSL_CTX *ctx = site->ctx = SSL_CTX_new(TLS_server_method());
    if (!ctx)
        return error_set(error, -ENOMEM, "memory is out");
    SSL_CTX_set_options(ctx, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    sessions_use(ctx);
    SSL_CTX_set_timeout(ctx, (long)(server->tls->session_timeout / 1000));
    if (server->tls->session_tickets) {
        tickets_use(ctx, &server->tickets);
        SSL_CTX_set_num_tickets(ctx, 1);  // a second one costs a tenth of the handshake
    } else {
        SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
        SSL_CTX_set_num_tickets(ctx, 0);
    }
    SSL_CTX_set_session_id_context(ctx, server->session_context, sizeof server->session_context);
    if (server->early_data) {
        // What was sent once may come twice: only requests that do no harm then are let in (exchange.c).
        SSL_CTX_set_max_early_data(ctx, EARLY_MAX);
        SSL_CTX_set_recv_max_early_data(ctx, EARLY_MAX);
        SSL_CTX_set_options(ctx, SSL_OP_NO_ANTI_REPLAY);
    }
    SSL_CTX_set_client_hello_cb(ctx, tls_stream_hello, NULL);
    SSL_CTX_set_tlsext_servername_callback(ctx, on_server_name);
    SSL_CTX_set_tlsext_servername_arg(ctx, server);
    SSL_CTX_set_alpn_select_cb(ctx, on_alpn, server);
    int rc = context_set(ctx, server->conf, server->tls, error);
    if (rc == 0)
        rc = set_client_verification(server, ctx, error);
    staples_use(ctx, &server->staples);
    key_log_use(ctx, server->key_log);
    for (unsigned i = 0; rc == 0 && i < site->count; i++)
        rc = use_pair(server, ctx, site->pairs[i], error);
    return rc;
}

// The site with exactly these certificates; made when there is none.
static struct tls_site *site_of(struct tls_server *server, const struct pem_pair *const *pairs,
                                unsigned count) {
    struct tls_site **at = &server->sites;
    for (; *at; at = &(*at)->next)
        if ((*at)->count == count &&
            memcmp((*at)->pairs, pairs, count * sizeof(const struct pem_pair *)) == 0)
            return *at;
    struct tls_site *site = calloc(1, sizeof *site);
    if (!site)
        return NULL;
    site->count = count;
    memcpy(site->pairs, pairs, count * sizeof(const struct pem_pair *));
    *at = site;
    return site;
}

// Of all certificates that have the name the first of each kind of key; those with the very name come before
// those with a wildcard.
static struct tls_site *site_for_name(struct tls_server *server, const struct pem_pair *pairs,
                                      struct slice name) {
    const struct pem_pair *chosen[PEM_KINDS];
    unsigned count = 0;
    for (int wildcards = 0; wildcards <= 1; wildcards++)
        for (const struct pem_pair *pair = pairs; pair; pair = pair->next) {
            bool taken = !pem_pair_names(pair, name, wildcards);
            for (unsigned i = 0; i < count && !taken; i++)
                taken = chosen[i]->kind == pair->kind;
            if (!taken && count < PEM_KINDS)
                chosen[count++] = pair;
        }
    return site_of(server, chosen, count);
}

static int make_sites(struct tls_server *server, const struct pem_pair *pairs) {
    struct tls_site *first = pairs->name_count > 0 ? site_for_name(server, pairs, slice_of(pairs->names[0]))
                                                   : site_of(server, &pairs, 1);
    if (!first)
        return -ENOMEM;
    for (const struct pem_pair *pair = pairs; pair; pair = pair->next)
        for (unsigned i = 0; i < pair->name_count; i++) {
            struct slice name = slice_of(pair->names[i]);
            if (names_has(server->names, name))
                continue;
            struct tls_site *site = site_for_name(server, pairs, name);
            if (!site || names_add(server->names, name, site) < 0)
                return -ENOMEM;
        }
    return 0;
}

static bool digest_files(EVP_MD_CTX *md, const struct conf_file_text *file) {
    bool good = true;
    for (; file; file = file->next)
        good = good && EVP_DigestUpdate(md, file->text.at, file->text.len);
    return good;
}

// A session is resumed only where it could have begun: with the same frontend, and where clients are verified in the
// same way, for a resumed one is not verified again.
static void set_session_context(struct tls_server *server, const struct conf_frontend *frontend) {
    const struct conf_tls *tls = server->tls;
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    if (md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) &&
        EVP_DigestUpdate(md, frontend->name, strlen(frontend->name) + 1) &&
        EVP_DigestUpdate(md, &tls->verify_client, sizeof tls->verify_client) &&
        digest_files(md, tls->client_ca) && digest_files(md, tls->client_crl) &&
        EVP_DigestFinal_ex(md, digest, &len))
        memcpy(server->session_context, digest, sizeof server->session_context);
    EVP_MD_CTX_free(md);
}

static int add_staple(struct tls_server *server, const struct pem_pair *pair, struct error *error) {
    enum conf_stapling stapling = server->tls->stapling;
    if (pair->conf->staple_path)
        return staple_add(&server->staples, server->conf, pair->conf, pair->certificate, error);
    if (stapling == STAPLING_OFF || (stapling == STAPLING_AUTO && !staple_demanded(pair->certificate)))
        return 0;
    if (staple_ask(&server->staples, server->tls, pair->conf, pair->certificate, pair->chain) < 0)
        return error_set(error, -ENOMEM, "memory is out");
    return 0;
}

static int set_ticket_keys(struct tls_server *server) {
    struct ticket_ring *ring = &server->tickets;
    unsigned count = 0;
    for (const struct conf_file_text *file = server->tls->ticket_keys; file; file = file->next)
        count++;
    if (count == 0)
        return 0;
    ring->keys = calloc(count, sizeof *ring->keys);
    if (!ring->keys)
        return -ENOMEM;
    for (const struct conf_file_text *file = server->tls->ticket_keys; file; file = file->next)
        ring->keys[ring->count++] = ticket_key_of(file->text);
    return 0;
}

int tls_server_new(const struct conf *conf, const struct conf_frontend *frontend,
                   const struct conf_listen *listen, struct tls_server **ret_server, struct error *error) {
    struct tls_server *server = calloc(1, sizeof *server);
    struct pem_pair *pairs = NULL;
    if (!server || !(server->names = names_new())) {
        free(server);
        return error_set(error, -ENOMEM, "memory is out");
    }
    server->refs = 1;
    server->conf = conf;
    server->tls = listen->tls;
    server->strict = listen->tls->strict_names;
    server->early_data = listen->tls->early_data;
    set_session_context(server, frontend);
    int rc = set_alpn(server, error);
    if (rc == 0)
        rc = pem_load(conf, listen->tls->certificates, &pairs, error);
    for (const struct pem_pair *pair = pairs; pair && rc == 0; pair = pair->next)
        rc = add_staple(server, pair, error);
    if (rc == 0 && listen->tls->key_log && !(server->key_log = key_log_new(listen->tls->key_log)))
        rc = error_set(error, -ENOMEM, "memory is out");
    if (rc == 0 && (set_ticket_keys(server) < 0 || make_sites(server, pairs) < 0))
        rc = error_set(error, -ENOMEM, "memory is out");
    for (struct tls_site *site = server->sites; rc == 0 && site; site = site->next)
        rc = context_new(server, site, error);
    pem_free(pairs);
    server->conf = NULL;
    server->tls = NULL;
    if (rc < 0) {
        tls_server_unref(server);
        return rc;
    }
    *ret_server = server;
    return 0;
}

void tls_server_unref(void *of) {
    struct tls_server *server = of;
    if (!server || --server->refs > 0)
        return;
    while (server->sites) {
        struct tls_site *site = server->sites;
        server->sites = site->next;
        SSL_CTX_free(site->ctx);
        free(site);
    }
    names_free(server->names);
    staples_release(&server->staples);
    key_log_free(server->key_log);
    free(server->tickets.keys);
    free(server);
}

struct ocsp *tls_server_staples(const struct tls_server *server) {
    return server->staples.asked;
}

static void warn_of_staples(const struct tls_server *server, const struct conf_tls *tls) {
    for (const struct conf_certificate *c = tls->certificates; c; c = c->next)
        for (const struct ocsp *ocsp = server->staples.asked; ocsp; ocsp = ocsp->next)
            if (ocsp->why && strcmp(ocsp->name, c->path) == 0)
                log_warn("%s:%d:%d: the certificate in \"%s\" %s, and none can be asked for: %s%s",
                         c->place.file, c->place.line, c->place.column, c->path,
                         ocsp->demanded ? "demands a staple and has none" : "has no staple", ocsp->why,
                         ocsp->demanded ? ": clients may refuse it" : "");
}

int tls_server_check(const struct conf *conf, struct error *error) {
    for (const struct conf_frontend *frontend = conf->frontends; frontend; frontend = frontend->next)
        for (const struct conf_listen *listen = frontend->listens; listen; listen = listen->next) {
            struct tls_server *server;
            if (!listen->tls)
                continue;
            int rc = tls_server_new(conf, frontend, listen, &server, error);
            if (rc < 0)
                return rc;
            pem_warn(listen->tls->certificates, listen->tls->stapling == STAPLING_OFF);
            warn_of_staples(server, listen->tls);
            tls_server_unref(server);
            if (listen->tls->key_log)
                log_warn("listener \"%s\": key_log is on: who reads \"%s\" can read all that is sent",
                         listen->name, listen->tls->key_log);
        }
    return 0;
}

int tls_accept(struct conn *conn, struct tls_server *server, const struct tls_callbacks *callbacks,
               void *owner) {
    SSL *ssl = SSL_new(server->sites->ctx);
    if (!ssl)
        return -ENOMEM;
    SSL_set_accept_state(ssl);
    server->refs++;
    int rc = tls_stream_begin(conn, ssl, callbacks, owner, server, tls_server_unref);
    if (rc == 0)
        tls_stream_of(conn)->early = server->early_data;
    return rc;
}
