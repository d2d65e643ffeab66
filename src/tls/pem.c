// SPDX-License-Identifier: BSD-2-Clause
// Reads PEM (pem.h). What may be in a file: certificates, the first of which is the server's, and a private
// key; other parts are passed over.
#include "tls/pem.h"

#include "base/log.h"
#include "tls/names.h"
#include "tls/staple.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

enum { SOON = 7 * 86400 };

static BIO *reader(struct slice text) {
    return BIO_new_mem_buf(text.at, (int)text.len);
}

// Nobody is there to be asked.
static int no_password(char *to, int room, int writing, void *asked) {
    (void)to, (void)room, (void)writing;
    *(bool *)asked = true;
    return -1;
}

static X509 *next_certificate(BIO *bio) {
    X509 *certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    if (!certificate && ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE)
        ERR_clear_error();
    return certificate;
}

static int add_name(struct pem_pair *pair, const char *text, size_t len) {
    char **names = realloc(pair->names, (pair->name_count + 1) * sizeof *names);
    if (!names)
        return -ENOMEM;
    pair->names = names;
    names[pair->name_count] = strndup(text, len);
    return names[pair->name_count++] ? 0 : -ENOMEM;
}

// The DNS names of subjectAltName; without such an extension the subject's common name.
static int read_names(struct pem_pair *pair) {
    GENERAL_NAMES *all = X509_get_ext_d2i(pair->certificate, NID_subject_alt_name, NULL, NULL);
    int rc = 0;
    for (int i = 0; all && rc == 0 && i < sk_GENERAL_NAME_num(all); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(all, i);
        if (name->type == GEN_DNS)
            rc = add_name(pair, (const char *)ASN1_STRING_get0_data(name->d.dNSName),
                          (size_t)ASN1_STRING_length(name->d.dNSName));
    }
    GENERAL_NAMES_free(all);
    char common[256];
    int len = all ? 0
                  : X509_NAME_get_text_by_NID(X509_get_subject_name(pair->certificate), NID_commonName,
                                              common, sizeof common);
    return rc == 0 && len > 0 ? add_name(pair, common, (size_t)len) : rc;
}

static int load_chain(const struct conf *conf, struct pem_pair *pair, struct error *error) {
    const struct conf_certificate *c = pair->conf;
    BIO *bio = reader(c->text);
    pair->chain = sk_X509_new_null();
    pair->certificate = bio ? next_certificate(bio) : NULL;
    X509 *more;
    while (pair->certificate && pair->chain && (more = next_certificate(bio)))
        sk_X509_push(pair->chain, more);
    BIO_free(bio);
    unsigned long code = ERR_peek_last_error();
    const char *reason = ERR_reason_error_string(code);
    ERR_clear_error();
    if (!pair->certificate && code == 0)
        return conf_error(conf, c->place, error, "no certificate in \"%s\", expected one in PEM form",
                          c->path);
    if (code != 0)
        return conf_error(conf, c->place, error, "bad certificate in \"%s\": %s", c->path,
                          reason ? reason : "?");
    return 0;
}

static int load_key(const struct conf *conf, struct pem_pair *pair, struct error *error) {
    const struct conf_certificate *c = pair->conf;
    const char *path = c->key_path ? c->key_path : c->path;
    bool asked = false;
    BIO *bio = reader(c->key);
    pair->key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_password, &asked) : NULL;
    BIO_free(bio);
    ERR_clear_error();
    if (asked)
        return conf_error(conf, c->key_place, error,
                          "the private key in \"%s\" is encrypted, expected a plain one", path);
    if (!pair->key)
        return conf_error(conf, c->key_place, error, "no private key in \"%s\", expected one in PEM form",
                          path);
    if (!X509_check_private_key(pair->certificate, pair->key)) {
        ERR_clear_error();
        return conf_error(conf, c->key_place, error,
                          "the private key in \"%s\" is not that of the certificate in \"%s\"", path,
                          c->path);
    }
    pair->kind = EVP_PKEY_get_base_id(pair->key);
    return 0;
}

int pem_load(const struct conf *conf, const struct conf_certificate *certificates,
             struct pem_pair **ret_pairs, struct error *error) {
    struct pem_pair *pairs = NULL, **end = &pairs;
    int rc = 0;
    for (const struct conf_certificate *c = certificates; c && rc == 0; c = c->next) {
        struct pem_pair *pair = *end = calloc(1, sizeof *pair);
        if (!pair) {
            rc = error_set(error, -ENOMEM, "memory is out");
            break;
        }
        end = &pair->next;
        pair->conf = c;
        rc = load_chain(conf, pair, error);
        if (rc == 0)
            rc = load_key(conf, pair, error);
        if (rc == 0 && read_names(pair) < 0)
            rc = error_set(error, -ENOMEM, "memory is out");
    }
    if (rc < 0) {
        pem_free(pairs);
        return rc;
    }
    *ret_pairs = pairs;
    return 0;
}

void pem_free(struct pem_pair *pairs) {
    while (pairs) {
        struct pem_pair *pair = pairs;
        pairs = pair->next;
        X509_free(pair->certificate);
        sk_X509_pop_free(pair->chain, X509_free);
        EVP_PKEY_free(pair->key);
        for (unsigned i = 0; i < pair->name_count; i++)
            free(pair->names[i]);
        free(pair->names);
        free(pair);
    }
}

bool pem_pair_names(const struct pem_pair *pair, struct slice name, bool wildcards) {
    for (unsigned i = 0; i < pair->name_count; i++) {
        struct slice own = slice_of(pair->names[i]);
        if (wildcards ? name_fits(own, name) : slice_ieq(own, name))
            return true;
    }
    return false;
}

static bool at_end(void) {
    bool end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
    if (end)
        ERR_clear_error();
    return end;
}

int pem_add_authorities(SSL_CTX *ctx, struct slice text, unsigned *count) {
    BIO *bio = reader(text);
    X509 *certificate;
    bool good = bio != NULL;
    ERR_clear_error();
    while (good && (certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
        good = X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), certificate) &&
            SSL_CTX_add_client_CA(ctx, certificate);
        X509_free(certificate);
        *count += good;
    }
    BIO_free(bio);
    return good && at_end() ? 0 : -EINVAL;
}

int pem_add_lists(X509_STORE *store, struct slice text, unsigned *count) {
    BIO *bio = reader(text);
    X509_CRL *list;
    bool good = bio != NULL;
    ERR_clear_error();
    while (good && (list = PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL))) {
        good = X509_STORE_add_crl(store, list);
        X509_CRL_free(list);
        *count += good;
    }
    BIO_free(bio);
    return good && at_end() ? 0 : -EINVAL;
}

static void warn(const struct conf_certificate *c, const X509 *certificate, bool unstapled) {
    time_t soon = time(NULL) + SOON;
    struct tm until = { 0 };
    char text[32] = "";
    if (ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &until))
        strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &until);
    const char *when = X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0 ? "is not valid yet"
        : X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0               ? "has expired"
        : X509_cmp_time(X509_get0_notAfter(certificate), &soon) < 0                ? "expires soon"
                                                                                   : NULL;
    if (when)
        log_warn("%s:%d:%d: the certificate in \"%s\" %s (valid until %s)", c->place.file, c->place.line,
                 c->place.column, c->path, when, text);
    if (unstapled && !c->staple_path && staple_demanded(certificate))
        log_warn("%s:%d:%d: the certificate in \"%s\" demands a staple and has none: clients may refuse it",
                 c->place.file, c->place.line, c->place.column, c->path);
}

void pem_warn(const struct conf_certificate *certificates, bool unstapled) {
    for (const struct conf_certificate *c = certificates; c; c = c->next) {
        BIO *bio = reader(c->text);
        X509 *certificate = bio ? next_certificate(bio) : NULL;
        BIO_free(bio);
        if (certificate)
            warn(c, certificate, unstapled);
        X509_free(certificate);
    }
}
