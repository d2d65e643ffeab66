// SPDX-License-Identifier: BSD-2-Clause
// Contexts of OpenSSL for upstreams (client.h), the check of names and pins, and the sessions that may be
// resumed.
#include "tls/client.h"

#include "base/log.h"
#include "tls/context.h"
#include "tls/pem.h"
#include "tls/stream_impl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

enum { SESSIONS = 64, HOST_MAX = 254, NAMES_MAX = 256, DIGEST = 32 };

// Those who are trusted, with what they revoked: read once for all that trust the same.
struct trust {
    struct trust *next;
    unsigned refs;
    unsigned char digest[DIGEST];  // of the texts
    X509_STORE *store;
};

static struct trust *trusts;

struct session {
    uint64_t server;  // hash of its name
    SSL_SESSION *session;
};

struct tls_client {
    unsigned refs;
    SSL_CTX *ctx;
    struct trust *trust;  // NULL: nobody is verified
    bool verify;
    char *name;  // NULL: as the server is called
    unsigned pin_count;
    unsigned char (*pins)[DIGEST];
    struct session sessions[SESSIONS];  // in turn: a new one takes the place of the oldest
    unsigned next_session;
};

// What a conn with TLS holds until it is freed.
struct attempt {
    struct tls_client *client;
    uint64_t server;
    char host[HOST_MAX + 1];
    char names[NAMES_MAX];  // of a certificate that was refused for them
};

static int attempt_index(void) {
    static int index = -1;
    if (index < 0)
        index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    return index;
}

// ---- whom to trust ----------------------------------------------------------------------------------------

static bool sha256(struct slice a, struct slice b, unsigned char *to) {
    unsigned len = 0;
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool done = md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) &&
        EVP_DigestUpdate(md, &a.len, sizeof a.len) && EVP_DigestUpdate(md, a.at, a.len) &&
        EVP_DigestUpdate(md, b.at, b.len) && EVP_DigestFinal_ex(md, to, &len);
    EVP_MD_CTX_free(md);
    return done;
}

// All certificates, or all lists, of a text. How many there were, -1 for one that cannot be read.
static int add_all(X509_STORE *store, struct slice text, bool lists) {
    BIO *bio = BIO_new_mem_buf(text.at, (int)text.len);
    int count = 0;
    while (bio) {
        X509 *certificate = lists ? NULL : PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL);
        X509_CRL *list = lists ? PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL) : NULL;
        if (!certificate && !list)
            break;
        bool added = lists ? X509_STORE_add_crl(store, list) : X509_STORE_add_cert(store, certificate);
        X509_free(certificate);
        X509_CRL_free(list);
        if (!added)
            break;
        count++;
    }
    BIO_free(bio);
    unsigned long code = ERR_peek_last_error();
    bool end = code == 0 || ERR_GET_REASON(code) == PEM_R_NO_START_LINE;
    if (end)
        ERR_clear_error();
    return end ? count : -1;
}

static int load_trust(const struct conf *conf, const struct conf_tls *tls, struct trust *trust,
                      struct error *error) {
    trust->store = X509_STORE_new();
    if (!trust->store)
        return error_set(error, -ENOMEM, "memory is out");
    int count = add_all(trust->store, tls->ca_text, false);
    const char *path = tls->ca ? tls->ca : "the system's file of authorities";
    if (count < 0)
        return conf_error(conf, tls->ca_place, error, "bad certificate in \"%s\": %s", path,
                          context_reason());
    if (count == 0)
        return conf_error(conf, tls->ca_place, error, "no certificate in \"%s\", expected some in PEM form",
                          path);
    if (!tls->crl)
        return 0;
    count = add_all(trust->store, tls->crl_text, true);
    if (count < 0)
        return conf_error(conf, tls->crl_place, error, "bad list in \"%s\": %s", tls->crl, context_reason());
    if (count == 0)
        return conf_error(conf, tls->crl_place, error,
                          "no list of revoked certificates in \"%s\", expected some in PEM form", tls->crl);
    return 0;
}

static void trust_unref(struct trust *trust) {
    if (!trust || --trust->refs > 0)
        return;
    struct trust **at = &trusts;
    while (*at && *at != trust)
        at = &(*at)->next;
    if (*at)
        *at = trust->next;
    X509_STORE_free(trust->store);
    free(trust);
}

static int find_trust(const struct conf *conf, const struct conf_tls *tls, struct trust **ret_trust,
                      struct error *error) {
    unsigned char digest[DIGEST];
    if (!sha256(tls->ca_text, tls->crl_text, digest))
        return error_set(error, -ENOMEM, "memory is out");
    for (struct trust *trust = trusts; trust; trust = trust->next)
        if (memcmp(trust->digest, digest, DIGEST) == 0) {
            trust->refs++;
            *ret_trust = trust;
            return 0;
        }
    struct trust *trust = calloc(1, sizeof *trust);
    if (!trust)
        return error_set(error, -ENOMEM, "memory is out");
    trust->refs = 1;
    memcpy(trust->digest, digest, DIGEST);
    int rc = load_trust(conf, tls, trust, error);
    if (rc < 0) {
        trust_unref(trust);
        return rc;
    }
    trust->next = trusts;
    trusts = trust;
    *ret_trust = trust;
    return 0;
}

// ---- the server's certificate -----------------------------------------------------------------------------

static bool is_pinned(const struct tls_client *client, X509 *certificate) {
    unsigned char *der = NULL, digest[EVP_MAX_MD_SIZE];
    int len = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(certificate), &der);
    bool found = false;
    if (len > 0 && EVP_Digest(der, (size_t)len, digest, NULL, EVP_sha256(), NULL))
        for (unsigned i = 0; i < client->pin_count; i++)
            found |= memcmp(client->pins[i], digest, DIGEST) == 0;
    OPENSSL_free(der);
    return found;
}

// The DNS names that the certificate has, as far as they fit.
static void print_names(X509 *certificate, char *to, size_t room) {
    GENERAL_NAMES *all = certificate ? X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL) : NULL;
    size_t len = 0;
    for (int i = 0; all && i < sk_GENERAL_NAME_num(all); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(all, i);
        if (name->type != GEN_DNS)
            continue;
        const char *at = (const char *)ASN1_STRING_get0_data(name->d.dNSName);
        int n = ASN1_STRING_length(name->d.dNSName);
        bool plain = true;
        for (int k = 0; k < n; k++)
            plain &= at[k] > ' ' && at[k] < 0x7f && at[k] != '"';
        if (plain && len + (size_t)n + 3 <= room)
            len += (size_t)snprintf(to + len, room - len, "%s%.*s", len > 0 ? ", " : "", n, at);
    }
    GENERAL_NAMES_free(all);
}

static int verify(X509_STORE_CTX *store, void *arg) {
    const struct tls_client *client = arg;
    SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct attempt *attempt = SSL_get_ex_data(ssl, attempt_index());
    if (client->verify && X509_verify_cert(store) <= 0) {
        print_names(X509_STORE_CTX_get0_cert(store), attempt->names, sizeof attempt->names);
        return 0;
    }
    STACK_OF(X509) *chain = client->verify ? X509_STORE_CTX_get0_chain(store) : NULL;
    bool pinned = client->pin_count == 0 || (!chain && is_pinned(client, X509_STORE_CTX_get0_cert(store)));
    for (int i = 0; i < sk_X509_num(chain) && !pinned; i++)
        pinned = is_pinned(client, sk_X509_value(chain, i));
    X509_STORE_CTX_set_error(store, pinned ? X509_V_OK : X509_V_ERR_APPLICATION_VERIFICATION);
    return pinned;
}

const char *tls_connect_why(const struct conn *conn, const char *why) {
    static char text[HOST_MAX + NAMES_MAX + 64];
    const struct tls_stream *stream = tls_stream_of(conn);
    const struct attempt *attempt = stream ? SSL_get_ex_data(stream->ssl, attempt_index()) : NULL;
    if (!attempt)
        return why;
    switch (SSL_get_verify_result(stream->ssl)) {
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
        snprintf(text, sizeof text, "the server's certificate is not for \"%s\", its names: %s",
                 attempt->host, attempt->names[0] ? attempt->names : "none");
        return text;
    case X509_V_ERR_APPLICATION_VERIFICATION:
        return "the server's key is none of those that are pinned";
    default:
        return why;
    }
}

// ---- sessions ---------------------------------------------------------------------------------------------

static int on_session(SSL *ssl, SSL_SESSION *session) {
    const struct attempt *attempt = SSL_get_ex_data(ssl, attempt_index());
    if (!attempt)
        return 0;
    struct tls_client *client = attempt->client;
    struct session *to = &client->sessions[client->next_session++ % SESSIONS];
    SSL_SESSION_free(to->session);
    *to = (struct session){ attempt->server, session };
    return 1;  // we have it now
}

// The newest of the server. A ticket of TLS 1.3 is used once (RFC 8446, C.4).
static void resume(struct tls_client *client, SSL *ssl, uint64_t server) {
    for (unsigned i = 1; i <= SESSIONS; i++) {
        struct session *from = &client->sessions[(client->next_session - i) % SESSIONS];
        if (!from->session || from->server != server)
            continue;
        if (!SSL_SESSION_is_resumable(from->session)) {
            SSL_SESSION_free(from->session);
            *from = (struct session){ 0 };
            continue;
        }
        SSL_set_session(ssl, from->session);
        if (SSL_SESSION_get_protocol_version(from->session) >= TLS1_3_VERSION) {
            SSL_SESSION_free(from->session);
            *from = (struct session){ 0 };
        }
        return;
    }
}

static const unsigned char h1[] = "\10http/1.1";

// ---- making it --------------------------------------------------------------------------------------------

static int set_certificate(const struct conf *conf, const struct conf_tls *tls, SSL_CTX *ctx,
                           struct error *error) {
    struct pem_pair *pair = NULL;
    if (!tls->certificates)
        return 0;
    int rc = pem_load(conf, tls->certificates, &pair, error);
    if (rc == 0 && !SSL_CTX_use_cert_and_key(ctx, pair->certificate, pair->key, pair->chain, 1))
        rc = conf_error(conf, tls->certificates->place, error, "the certificate cannot be used: %s",
                        context_reason());
    pem_free(pair);
    return rc;
}

static int set_pins(struct tls_client *client, const struct conf_tls *tls) {
    for (const struct conf_pin *pin = tls->pins; pin; pin = pin->next)
        client->pin_count++;
    client->pins = calloc(client->pin_count ? client->pin_count : 1, sizeof *client->pins);
    unsigned i = 0;
    for (const struct conf_pin *pin = tls->pins; pin && client->pins; pin = pin->next)
        memcpy(client->pins[i++], pin->digest, DIGEST);
    return client->pins ? 0 : -ENOMEM;
}

static int make(struct tls_client *client, const struct conf *conf, const struct conf_tls *tls,
                enum conf_protocol protocol, struct error *error) {
    static const unsigned char both[] = "\2h2\10http/1.1", h2[] = "\2h2";
    const unsigned char *alpn = protocol == PROTOCOL_H2 ? h2 : protocol == PROTOCOL_HTTP1 ? h1 : both;
    SSL_CTX *ctx = client->ctx = SSL_CTX_new(TLS_client_method());
    if (!ctx || (tls->name && !(client->name = strdup(tls->name))) || set_pins(client, tls) < 0 ||
        (protocol != PROTOCOL_OTHER &&
         SSL_CTX_set_alpn_protos(ctx, alpn, (unsigned)strlen((const char *)alpn)) != 0))
        return error_set(error, -ENOMEM, "memory is out");
    client->verify = tls->verify;
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(ctx, on_session);
    SSL_CTX_set_verify(ctx, tls->verify || client->pin_count > 0 ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_cert_verify_callback(ctx, verify, client);
    int rc = context_set(ctx, conf, tls, error);
    if (rc == 0)
        rc = set_certificate(conf, tls, ctx, error);
    if (rc == 0 && tls->verify)
        rc = find_trust(conf, tls, &client->trust, error);
    if (rc < 0 || !client->trust)
        return rc;
    SSL_CTX_set1_cert_store(ctx, client->trust->store);
    X509_VERIFY_PARAM *param = SSL_CTX_get0_param(ctx);
    X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_PARTIAL_CHAIN);  // who is named is trusted, a root or not
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    if (tls->crl)
        X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
    return 0;
}

int tls_client_new(const struct conf *conf, const struct conf_tls *tls, enum conf_protocol protocol,
                   struct tls_client **ret_client, struct error *error) {
    struct tls_client *client = calloc(1, sizeof *client);
    if (!client)
        return error_set(error, -ENOMEM, "memory is out");
    client->refs = 1;
    int rc = make(client, conf, tls, protocol, error);
    if (rc < 0) {
        tls_client_unref(client);
        return rc;
    }
    *ret_client = client;
    return 0;
}

int tls_client_for_scripts(const struct conf *conf, struct slice pem, bool verify,
                           struct tls_client **ret_client, struct error *error) {
    struct conf_tls tls = conf->of_address_tls;
    tls.verify = verify;
    if (pem.at) {
        tls.ca = "what was given";
        tls.ca_text = pem;
        tls.ca_place = (struct conf_place){ 0 };
    }
    if (verify && !tls.ca_text.at)
        return error_set(error, -ENOENT, "there are no authorities to trust (fetch_ca)");
    return tls_client_new(conf, &tls, PROTOCOL_OTHER, ret_client, error);
}

struct tls_client *tls_client_ref(struct tls_client *client) {
    client->refs++;
    return client;
}

void tls_client_unref(void *of) {
    struct tls_client *client = of;
    if (!client || --client->refs > 0)
        return;
    for (unsigned i = 0; i < SESSIONS; i++)
        SSL_SESSION_free(client->sessions[i].session);
    SSL_CTX_free(client->ctx);
    trust_unref(client->trust);
    free(client->name);
    free(client->pins);
    free(client);
}

int tls_client_check(const struct conf *conf, struct error *error) {
    for (const struct conf_upstream *upstream = conf->upstreams; upstream; upstream = upstream->next) {
        struct tls_client *client;
        if (!upstream->tls)
            continue;
        int rc = tls_client_new(conf, upstream->tls, upstream->protocol, &client, error);
        if (rc < 0)
            return rc;
        tls_client_unref(client);
        pem_warn(upstream->tls->certificates, false);
    }
    return 0;
}

// ---- connecting -------------------------------------------------------------------------------------------

static void attempt_free(void *of) {
    struct attempt *attempt = of;
    tls_client_unref(attempt->client);
    free(attempt);
}

// The name to check and to ask for; of an address only the check.
static bool set_host(SSL *ssl, const struct tls_client *client, const char *host) {
    unsigned char address[16];
    if (client->verify && !host[0])
        return false;
    bool is_address = inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
    if (!is_address && host[0] && !SSL_set_tlsext_host_name(ssl, host))
        return false;
    if (!client->verify)
        return true;
    if (is_address)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host);
    return SSL_set1_host(ssl, host);
}

int tls_connect(struct conn *conn, struct tls_client *client, struct slice host, struct slice server,
                bool http1, const struct tls_callbacks *callbacks, void *owner) {
    struct attempt *attempt = calloc(1, sizeof *attempt);
    SSL *ssl = attempt ? SSL_new(client->ctx) : NULL;
    if (client->name)
        host = slice_of(client->name);
    if (host.len > HOST_MAX)
        host.len = 0;
    if (attempt && host.len > 0)
        memcpy(attempt->host, host.at, host.len);
    if (ssl && http1 && SSL_set_alpn_protos(ssl, h1, sizeof h1 - 1) != 0) {
        SSL_free(ssl);
        ssl = NULL;
    }
    if (!ssl || !set_host(ssl, client, attempt->host) || !SSL_set_ex_data(ssl, attempt_index(), attempt)) {
        SSL_free(ssl);
        free(attempt);
        ERR_clear_error();
        return -ENOMEM;
    }
    attempt->client = tls_client_ref(client);
    attempt->server = slice_hash(server, 0);
    SSL_set_connect_state(ssl);
    resume(client, ssl, attempt->server);
    return tls_stream_begin(conn, ssl, callbacks, owner, attempt, attempt_free);
}
