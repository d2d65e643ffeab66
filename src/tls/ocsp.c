// SPDX-License-Identifier: BSD-2-Clause
// Requests, responses and the plan of ocsp.h. In the shared dictionary each certificate has a record (struct
// record, with the response behind it), and while somebody asks a lease, which ends by itself if that worker
// dies.
#include "tls/ocsp.h"

#include "base/clock.h"
#include "base/counters.h"
#include "base/log.h"
#include "tls/vault.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/http.h>
#include <openssl/ocsp.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    VAULT = 8 << 20,
    LEASE_MS = OCSP_PATIENCE * 2,
    LOOK_MS = 1000,         // at a lease of somebody else
    FIRST_RETRY_MS = 1000,  // after a failure, twice as long after each further one
    LAST_RETRY_MS = 3600 * 1000,
    LEAST_MS = 1000,
    MOST_MS = 43200 * 1000,      // between two responses
    KEPT_MS = 7 * 86400 * 1000,  // a record that nobody renews
    NO_END_S = 86400,            // a response that does not say how long it holds
    SKEW_S = 300,                // between its clock and ours
    WARN_EVERY_MS = 60000,
};

struct record {
    uint64_t next_ms;   // when to ask, on the monotonic clock, which all processes share
    int64_t until;      // seconds since 1970: when the response is out of date
    uint32_t failures;  // in a row
    uint32_t len;       // of the response behind it, 0: there is none
};

static struct dict vault;
static bool shared;

int ocsp_share(struct error *error) {
    int rc = vault_make(&vault, VAULT, "OCSP responses", error);
    shared = rc == 0;
    return rc;
}

// ---- records ----------------------------------------------------------------------------------------------

static struct slice key_of(const struct ocsp *ocsp) {
    return slice_make(ocsp->key, sizeof ocsp->key);
}

// The lease's key is the record's with one more byte.
static struct slice lease_of(const struct ocsp *ocsp, char to[sizeof ocsp->key + 1]) {
    memcpy(to, ocsp->key, sizeof ocsp->key);
    to[sizeof ocsp->key] = 'L';
    return slice_make(to, sizeof ocsp->key + 1);
}

static char loaded[DICT_VALUE_MAX];  // what load() has read: a record with its response
static const char *const response_of_loaded = loaded + sizeof(struct record);

// All zero when there is none.
static struct record load(const struct ocsp *ocsp) {
    struct record record = { 0 };
    struct dict_value value;
    if (!shared || dict_get(&vault, key_of(ocsp), clock_ms(), &value, loaded, sizeof loaded) < 0 ||
        value.kind != DICT_text || value.text.len < sizeof record)
        return record;
    memcpy(&record, value.text.at, sizeof record);
    return record.len == value.text.len - sizeof record ? record : (struct record){ 0 };
}

void ocsp_dropped(const struct ocsp *ocsp) {
    char lease[sizeof ocsp->key + 1];
    if (shared)
        (void)!dict_delete(&vault, lease_of(ocsp, lease), clock_ms());
}

static void store(const struct ocsp *ocsp, const struct record *record, const char *response) {
    static char buffer[sizeof *record + OCSP_MAX];
    memcpy(buffer, record, sizeof *record);
    memcpy(buffer + sizeof *record, response, record->len);
    const struct dict_value value = { DICT_text, .text = { buffer, sizeof *record + record->len } };
    int rc = shared ? dict_set(&vault, key_of(ocsp), &value, KEPT_MS, clock_ms()) : 0;
    if (rc < 0)
        log_error("certificate \"%s\": its OCSP response finds no room: %s", ocsp->name, strerror(-rc));
    ocsp_dropped(ocsp);
}

bool ocsp_due(const struct ocsp *ocsp, uint64_t *ret_wait_ms) {
    char lease[sizeof ocsp->key + 1];
    const struct dict_value value = { DICT_boolean, .boolean = true };
    *ret_wait_ms = LAST_RETRY_MS;
    if (!shared || ocsp->why)
        return false;
    struct record record = load(ocsp);
    bool mine = record.next_ms <= clock_ms();
    if (mine && dict_add(&vault, lease_of(ocsp, lease), &value, LEASE_MS, clock_ms()) < 0) {
        *ret_wait_ms = LOOK_MS;
        return false;
    }
    record = load(ocsp);  // again: the last one who had the lease may just have been done
    if (record.next_ms <= clock_ms())
        return true;
    if (mine)
        ocsp_dropped(ocsp);
    *ret_wait_ms = record.next_ms - clock_ms();
    return false;
}

// A tenth less or more, so that certificates and machines do not ask all at once.
static uint64_t jitter(uint64_t ms) {
    uint32_t random = 0;
    (void)RAND_bytes((unsigned char *)&random, sizeof random);
    return ms - ms / 10 + ms / 5 * (random >> 16) / 65536;
}

// The old response stays, if it is still good.
static void failed(const struct ocsp *ocsp, const char *why, bool drop) {
    struct record record = load(ocsp);
    uint64_t wait = LAST_RETRY_MS;
    if (record.failures < 12 && (uint64_t)FIRST_RETRY_MS << record.failures < wait)
        wait = (uint64_t)FIRST_RETRY_MS << record.failures;
    record.failures++;
    if (drop || record.until <= time(NULL))
        record.len = 0;
    wait = jitter(wait);
    record.next_ms = clock_ms() + wait;
    counters->staple_errors++;
    log_warn("certificate \"%s\": no staple from the OCSP responder \"%s\": %s; %s, asked again in %.1f s",
             ocsp->name, ocsp->host, why, record.len > 0 ? "the last one is still sent" : "none is sent",
             (double)wait / 1000);
    store(ocsp, &record, response_of_loaded);
}

void ocsp_failed(const struct ocsp *ocsp, const char *why) {
    failed(ocsp, why, false);
}

struct slice ocsp_current(struct ocsp *ocsp) {
    struct record record = load(ocsp);
    if (record.len > 0 && record.until > time(NULL))
        return slice_make(response_of_loaded, record.len);
    if (ocsp->demanded && (!ocsp->warned_ms || clock_ms() - ocsp->warned_ms >= WARN_EVERY_MS)) {
        ocsp->warned_ms = clock_ms() | 1;
        log_warn("certificate \"%s\" demands a staple and there is none at hand%s%s: clients may refuse it",
                 ocsp->name, ocsp->why ? ": " : "", ocsp->why ? ocsp->why : "");
    }
    return slice_make(NULL, 0);
}

// ---- responses --------------------------------------------------------------------------------------------

// Signed by the issuer, or by somebody whom the issuer has signed for just that (RFC 6960, 4.2.2.2).
static bool is_signed(const struct ocsp *ocsp, OCSP_BASICRESP *basic) {
    X509_STORE *store = X509_STORE_new();
    STACK_OF(X509) *known = sk_X509_new_null();
    bool good =
        store && known && X509_STORE_add_cert(store, ocsp->issuer) && sk_X509_push(known, ocsp->issuer) > 0;
    if (good) {
        X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN);
        good = OCSP_basic_verify(basic, known, store, OCSP_NOEXPLICIT) == 1;
    }
    sk_X509_free(known);
    X509_STORE_free(store);
    return good;
}

static int64_t seconds_of(const ASN1_GENERALIZEDTIME *when) {
    struct tm tm;
    return when && ASN1_TIME_to_tm(when, &tm) ? timegm(&tm) : 0;
}

// NULL, or what is wrong; *ret_revoked goes with it.
static const char *judge(const struct ocsp *ocsp, OCSP_BASICRESP *basic, int64_t *ret_until,
                         bool *ret_revoked) {
    ASN1_GENERALIZEDTIME *from = NULL, *until = NULL;
    int status, reason;
    if (!is_signed(ocsp, basic))
        return "the response is not signed by the certificate's issuer, or by whom it has signed for that";
    if (!OCSP_resp_find_status(basic, ocsp->id, &status, &reason, NULL, &from, &until))
        return "the response is for other certificates";
    if (!OCSP_check_validity(from, until, SKEW_S, -1))
        return "the response is out of date, or not valid yet";
    *ret_revoked = status == V_OCSP_CERTSTATUS_REVOKED;
    if (*ret_revoked)
        return "the certificate is revoked";
    if (status != V_OCSP_CERTSTATUS_GOOD)
        return "the responder does not know the certificate";
    *ret_until = until ? seconds_of(until) : time(NULL) + NO_END_S;
    return *ret_until > time(NULL) ? NULL : "the response is out of date";
}

static const char *read_response(const struct ocsp *ocsp, struct slice body, int64_t *ret_until,
                                 bool *ret_revoked) {
    static char text[128];
    const unsigned char *at = (const unsigned char *)body.at, *end = at + body.len;
    OCSP_RESPONSE *response = body.len > 0 ? d2i_OCSP_RESPONSE(NULL, &at, (long)body.len) : NULL;
    OCSP_BASICRESP *basic = NULL;
    const char *wrong = NULL;
    if (!response || at != end) {
        wrong = "what came is no OCSP response";
    } else if (OCSP_response_status(response) != OCSP_RESPONSE_STATUS_SUCCESSFUL) {
        snprintf(text, sizeof text, "it refuses (%s)",
                 OCSP_response_status_str(OCSP_response_status(response)));
        wrong = text;
    } else if (!(basic = OCSP_response_get1_basic(response))) {
        wrong = "the response is of no kind that is known";
    } else {
        wrong = judge(ocsp, basic, ret_until, ret_revoked);
    }
    OCSP_BASICRESP_free(basic);
    OCSP_RESPONSE_free(response);
    ERR_clear_error();
    return wrong;
}

void ocsp_answered(const struct ocsp *ocsp, struct slice body) {
    int64_t until = 0;
    bool revoked = false;
    const char *wrong =
        body.len > OCSP_MAX ? "the response is too large" : read_response(ocsp, body, &until, &revoked);
    if (wrong) {
        failed(ocsp, wrong, revoked);
        return;
    }
    // Half way to its end, so that a responder that is away has the other half to come back.
    uint64_t wait = (uint64_t)(until - time(NULL)) * 1000 / 2;
    if (wait > MOST_MS)
        wait = MOST_MS;
    if (wait < LEAST_MS)
        wait = LEAST_MS;
    const struct record record = { .next_ms = clock_ms() + jitter(wait),
                                   .until = until,
                                   .len = (uint32_t)body.len };
    counters->staples_fetched++;
    log_info("certificate \"%s\": a staple came from the OCSP responder \"%s\", good for %lld s", ocsp->name,
             ocsp->host, (long long)(until - time(NULL)));
    store(ocsp, &record, body.at);
}

// ---- making it --------------------------------------------------------------------------------------------

static X509 *find_issuer(X509 *certificate, STACK_OF(X509) * chain) {
    for (int i = 0; i < sk_X509_num(chain); i++)
        if (X509_check_issued(sk_X509_value(chain, i), certificate) == X509_V_OK)
            return sk_X509_value(chain, i);
    return X509_check_issued(certificate, certificate) == X509_V_OK ? certificate : NULL;
}

// What is asked is the same each time: without a nonce, which responders that sign ahead do not answer.
static bool make_request(struct ocsp *ocsp) {
    OCSP_REQUEST *request = OCSP_REQUEST_new();
    OCSP_CERTID *id = OCSP_CERTID_dup(ocsp->id);
    unsigned char *der = NULL;
    if (request && id && OCSP_request_add0_id(request, id)) {
        id = NULL;
        int len = i2d_OCSP_REQUEST(request, &der);
        if (len > 0)
            ocsp->request = slice_make((char *)der, (size_t)len);
    }
    OCSP_CERTID_free(id);
    OCSP_REQUEST_free(request);
    return ocsp->request.len > 0;
}

static bool make_key(struct ocsp *ocsp, const char *url) {
    unsigned char *der = NULL;
    int len = i2d_X509(ocsp->certificate, &der);
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool done = len > 0 && md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) &&
        EVP_DigestUpdate(md, der, (size_t)len) && EVP_DigestUpdate(md, url, strlen(url)) &&
        EVP_DigestFinal_ex(md, (unsigned char *)ocsp->key, NULL);
    EVP_MD_CTX_free(md);
    OPENSSL_free(der);
    return done;
}

// NULL, or why the URL cannot be asked.
static const char *read_url(struct ocsp *ocsp, const char *url) {
    char *host = NULL, *port = NULL, *path = NULL, *query = NULL;
    int secure = 0;
    bool done = OSSL_HTTP_parse_url(url, &secure, NULL, &host, &port, NULL, &path, &query, NULL) == 1;
    const char *why = done ? NULL : "the URL of its OCSP responder cannot be read";
    if (done && (secure || strncasecmp(url, "http://", 7) != 0)) {
        why = "the URL of its OCSP responder is not one of http";
    } else if (done) {
        bool six = strchr(host, ':') != NULL;
        bool standard = strcmp(port, "80") == 0;
        if (asprintf(&ocsp->to, "%s%s%s:%s", six ? "[" : "", host, six ? "]" : "", port) < 0)
            ocsp->to = NULL;
        if (asprintf(&ocsp->host, "%s%s%s%s%s", six ? "[" : "", host, six ? "]" : "", standard ? "" : ":",
                     standard ? "" : port) < 0)
            ocsp->host = NULL;
        if (asprintf(&ocsp->target, "%s%s%s%s", path[0] == '/' ? "" : "/", path, query && *query ? "?" : "",
                     query ? query : "") < 0)
            ocsp->target = NULL;
    }
    OPENSSL_free(host);
    OPENSSL_free(port);
    OPENSSL_free(path);
    OPENSSL_free(query);
    return why;
}

struct ocsp *ocsp_new(struct x509_st *certificate, struct stack_st_X509 *chain, const char *responder,
                      const char *name) {
    struct ocsp *ocsp = calloc(1, sizeof *ocsp);
    STACK_OF(OPENSSL_STRING) *urls = responder ? NULL : X509_get1_ocsp(certificate);
    const char *url = responder ? responder : sk_OPENSSL_STRING_value(urls, 0);
    X509 *issuer = find_issuer(certificate, chain);
    bool good = ocsp && (ocsp->name = strdup(name)) && X509_up_ref(certificate);
    if (good)
        ocsp->certificate = certificate;
    if (good && !url) {
        ocsp->why = "it names no OCSP responder";
    } else if (good && !issuer) {
        ocsp->why = "the certificate of its issuer is not behind it in the file";
    } else if (good) {
        X509_up_ref(issuer);
        ocsp->issuer = issuer;
        ocsp->id = OCSP_cert_to_id(NULL, certificate, issuer);
        ocsp->why = read_url(ocsp, url);
        good = ocsp->id && make_request(ocsp) && make_key(ocsp, url) &&
            (ocsp->why || (ocsp->to && ocsp->host && ocsp->target));
    }
    X509_email_free(urls);
    ERR_clear_error();
    if (good)
        return ocsp;
    ocsp_free(ocsp);
    return NULL;
}

void ocsp_free(struct ocsp *list) {
    while (list) {
        struct ocsp *ocsp = list;
        list = ocsp->next;
        X509_free(ocsp->certificate);
        X509_free(ocsp->issuer);
        OCSP_CERTID_free(ocsp->id);
        OPENSSL_free((void *)(uintptr_t)ocsp->request.at);
        free(ocsp->name);
        free(ocsp->to);
        free(ocsp->host);
        free(ocsp->target);
        free(ocsp);
    }
}
