// SPDX-License-Identifier: BSD-2-Clause
// What a certificate's authority says of it (OCSP, RFC 6960), asked for again and again and sent along with
// the certificate. One worker asks for all: responses, and when to ask next, are in memory that the master
// shares (vault.h), so that they survive reloads and deaths. This file says when to ask and what, and judges
// the response; the asking itself is proxy/stapler.c's, sending it to clients staple.c's.
//
// A responder that fails stops nothing: the last good response is sent until it is out of date.
#ifndef MOONGATE_TLS_OCSP_H
#define MOONGATE_TLS_OCSP_H

#include "base/error.h"
#include "base/slice.h"

enum {
    OCSP_MAX = 32768,       // bytes of a response
    OCSP_PATIENCE = 10000,  // milliseconds that a response may take
};

struct x509_st;
struct stack_st_X509;

// A certificate whose responses are asked for.
struct ocsp {
    struct ocsp *next;
    const char *why;  // it cannot be asked for; NULL: all below is set
    struct x509_st *certificate, *issuer;
    struct ocsp_cert_id_st *id;
    bool demanded;             // the certificate demands a staple
    uint64_t warned_ms;        // when its absence was logged last; 0: was not
    char key[32];              // of the shared memory: of the certificate and the URL
    char *name;                // for the log: the file
    char *to, *host, *target;  // host:port to connect to, the URL's authority, path and query
    struct slice request;      // to be POSTed
};

// By the master, before it forks.
int ocsp_share(struct error *error) __attribute__((warn_unused_result));

// responder: a URL, NULL: that of the certificate. The issuer is looked for in the chain. NULL when memory is
// out.
struct ocsp *ocsp_new(struct x509_st *certificate, struct stack_st_X509 *chain, const char *responder,
                      const char *name) __attribute__((warn_unused_result));
void ocsp_free(struct ocsp *list);  // all that follow, too; NULL is allowed

// Whether it is time, and this process's turn, to ask: then ocsp_answered(), ocsp_failed() or ocsp_dropped()
// must follow within OCSP_PATIENCE, else another one's turn comes. If not, look again after *ret_wait_ms.
bool ocsp_due(const struct ocsp *ocsp, uint64_t *ret_wait_ms);
// A whole response of HTTP status 200.
void ocsp_answered(const struct ocsp *ocsp, struct slice body);
void ocsp_failed(const struct ocsp *ocsp, const char *why);
// Neither: another one may ask at once.
void ocsp_dropped(const struct ocsp *ocsp);
// What is to be sent; empty when there is none that is good now. Valid until the next call.
struct slice ocsp_current(struct ocsp *ocsp);

#endif
