// SPDX-License-Identifier: BSD-2-Clause
// Certificates as texts (peer.h). All goes through one buffer: what does not fit is cut.
#include "tls/peer.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static char text[4096];

static struct slice taken(BIO *bio) {
    int len = bio ? BIO_read(bio, text, sizeof text) : 0;
    BIO_free(bio);
    ERR_clear_error();
    return slice_make(text, len > 0 ? (size_t)len : 0);
}

static struct slice name_text(const X509_NAME *name) {
    BIO *bio = BIO_new(BIO_s_mem());
    if (bio)
        X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB);
    return taken(bio);
}

static struct slice hex(const unsigned char *at, size_t len) {
    size_t most = sizeof text / 2 - 1;
    for (size_t i = 0; i < len && i < most; i++)
        sprintf(text + 2 * i, "%02x", at[i]);
    return slice_make(text, 2 * (len < most ? len : most));
}

static struct slice serial_text(const X509 *certificate) {
    const ASN1_INTEGER *serial = X509_get0_serialNumber(certificate);
    return hex(ASN1_STRING_get0_data(serial), (size_t)ASN1_STRING_length(serial));
}

static struct slice fingerprint(const X509 *certificate) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    if (!X509_digest(certificate, EVP_sha256(), digest, &len))
        len = 0;
    return hex(digest, len);
}

static struct slice time_text(const ASN1_TIME *when) {
    struct tm tm;
    if (!ASN1_TIME_to_tm(when, &tm))
        return (struct slice){ 0 };
    return slice_make(text, (size_t)snprintf(text, sizeof text, "%lld", (long long)timegm(&tm)));
}

// A name with a space, a comma or a control character could be taken for several, so it is left out.
static bool clean(const ASN1_IA5STRING *name) {
    const unsigned char *at = ASN1_STRING_get0_data(name);
    for (int i = 0; i < ASN1_STRING_length(name); i++)
        if (at[i] <= ' ' || at[i] > 126 || at[i] == ',')
            return false;
    return ASN1_STRING_length(name) > 0;
}

// dNSName, rfc822Name and URI of subjectAltName, a space between them.
static struct slice names_text(X509 *certificate) {
    GENERAL_NAMES *all = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    size_t len = 0;
    for (int i = 0; all && i < sk_GENERAL_NAME_num(all); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(all, i);
        if ((name->type != GEN_DNS && name->type != GEN_EMAIL && name->type != GEN_URI) ||
            !clean(name->d.ia5))
            continue;
        size_t size = (size_t)ASN1_STRING_length(name->d.ia5);
        if (len + size + 1 > sizeof text)
            break;
        if (len > 0)
            text[len++] = ' ';
        memcpy(text + len, ASN1_STRING_get0_data(name->d.ia5), size);
        len += size;
    }
    GENERAL_NAMES_free(all);
    ERR_clear_error();
    return slice_make(text, len);
}

struct slice peer_field(struct ssl_st *ssl, enum tls_field field) {
    X509 *certificate = SSL_get0_peer_certificate(ssl);
    if (!certificate)
        return (struct slice){ 0 };
    switch (field) {
    case TLS_client_subject:
        return name_text(X509_get_subject_name(certificate));
    case TLS_client_issuer:
        return name_text(X509_get_issuer_name(certificate));
    case TLS_client_serial:
        return serial_text(certificate);
    case TLS_client_fingerprint:
        return fingerprint(certificate);
    case TLS_client_names:
        return names_text(certificate);
    case TLS_client_not_before:
        return time_text(X509_get0_notBefore(certificate));
    case TLS_client_not_after:
        return time_text(X509_get0_notAfter(certificate));
    default:
        return (struct slice){ 0 };
    }
}
