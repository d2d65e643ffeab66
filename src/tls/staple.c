// SPDX-License-Identifier: BSD-2-Clause
// Staples of staple.h. What is out of date is not sent: a client that takes no staple for none may ask by
// itself.
#include "tls/staple.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { STATUS_REQUEST = 5 };  // the extension that a certificate demands

static int64_t seconds_of(const ASN1_TIME *when) {
    struct tm tm;
    return when && ASN1_TIME_to_tm(when, &tm) ? timegm(&tm) : INT64_MAX;
}

// NULL, or what is wrong. The first answer in it counts: there is one for each certificate.
static const char *read_response(const struct conf_certificate *c, const X509 *certificate,
                                 int64_t *ret_until) {
    const unsigned char *at = (const unsigned char *)c->staple.at;
    OCSP_RESPONSE *response = d2i_OCSP_RESPONSE(NULL, &at, (long)c->staple.len);
    OCSP_BASICRESP *basic = response ? OCSP_response_get1_basic(response) : NULL;
    OCSP_SINGLERESP *single = basic ? OCSP_resp_get0(basic, 0) : NULL;
    ASN1_GENERALIZEDTIME *until = NULL;
    ASN1_INTEGER *serial = NULL;
    const char *wrong = NULL;
    if (!response || OCSP_response_status(response) != OCSP_RESPONSE_STATUS_SUCCESSFUL || !single) {
        wrong = "is no OCSP response with an answer in DER form";
    } else {
        int status = OCSP_single_get0_status(single, NULL, NULL, NULL, &until);
        OCSP_id_get0_info(NULL, NULL, NULL, &serial,
                          (OCSP_CERTID *)(uintptr_t)OCSP_SINGLERESP_get0_id(single));
        if (!serial || ASN1_INTEGER_cmp(serial, X509_get0_serialNumber(certificate)) != 0)
            wrong = "is for another certificate";
        else if (status != V_OCSP_CERTSTATUS_GOOD)
            wrong = "does not say that the certificate is good";
        *ret_until = seconds_of(until);
    }
    OCSP_BASICRESP_free(basic);
    OCSP_RESPONSE_free(response);
    ERR_clear_error();
    return wrong;
}

int staple_add(struct staples *staples, const struct conf *conf, const struct conf_certificate *c,
               const X509 *certificate, struct error *error) {
    int64_t until = INT64_MAX;
    const char *wrong = read_response(c, certificate, &until);
    if (wrong)
        return conf_error(conf, c->staple_place, error, "\"%s\" %s", c->staple_path, wrong);
    struct staple *staple = malloc(sizeof *staple + c->staple.len);
    if (!staple)
        return error_set(error, -ENOMEM, "memory is out");
    *staple = (struct staple){ staples->files, certificate, until, c->staple.len };
    memcpy(staple->bytes, c->staple.at, c->staple.len);
    staples->files = staple;
    return 0;
}

int staple_ask(struct staples *staples, const struct conf_tls *tls, const struct conf_certificate *c,
               X509 *certificate, STACK_OF(X509) *chain) {
    struct ocsp *ocsp = ocsp_new(certificate, chain, tls->stapling_responder, c->path);
    if (!ocsp)
        return -ENOMEM;
    ocsp->demanded = staple_demanded(certificate);
    ocsp->next = staples->asked;
    staples->asked = ocsp;
    return 0;
}

void staples_release(struct staples *staples) {
    while (staples->files) {
        struct staple *next = staples->files->next;
        free(staples->files);
        staples->files = next;
    }
    ocsp_free(staples->asked);
    staples->asked = NULL;
}

// Empty: there is none.
static struct slice find(const struct staples *staples, const X509 *certificate) {
    for (const struct staple *staple = staples->files; staple; staple = staple->next)
        if (staple->certificate == certificate && staple->until > time(NULL))
            return slice_make((const char *)staple->bytes, staple->len);
    for (struct ocsp *ocsp = staples->asked; ocsp; ocsp = ocsp->next)
        if (ocsp->certificate == certificate)
            return ocsp_current(ocsp);
    return slice_make(NULL, 0);
}

static int on_status(SSL *ssl, void *arg) {
    struct slice found = find(arg, SSL_get_certificate(ssl));
    unsigned char *copy = found.len > 0 ? OPENSSL_memdup(found.at, found.len) : NULL;  // OpenSSL frees it
    if (!copy)
        return SSL_TLSEXT_ERR_NOACK;
    SSL_set_tlsext_status_ocsp_resp(ssl, copy, (long)found.len);
    return SSL_TLSEXT_ERR_OK;
}

void staples_use(SSL_CTX *ctx, const struct staples *staples) {
    if (!staples->files && !staples->asked)
        return;
    SSL_CTX_set_tlsext_status_cb(ctx, on_status);
    SSL_CTX_set_tlsext_status_arg(ctx, (void *)(uintptr_t)staples);
}

bool staple_demanded(const X509 *certificate) {
    TLS_FEATURE *features = X509_get_ext_d2i(certificate, NID_tlsfeature, NULL, NULL);
    bool demanded = false;
    for (int i = 0; features && i < sk_ASN1_INTEGER_num(features); i++)
        demanded = demanded || ASN1_INTEGER_get(sk_ASN1_INTEGER_value(features, i)) == STATUS_REQUEST;
    TLS_FEATURE_free(features);
    ERR_clear_error();
    return demanded;
}
