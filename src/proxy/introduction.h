// SPDX-License-Identifier: BSD-2-Clause
// How a proxy in front introduces its client: the PROXY header with which an accepted connection begins where the
// listen line says proxy_protocol. Not a byte behind the header is read, so that TLS or a codec finds them. Called by
// client.c; what is written towards servers is announce.c's.
#ifndef MOONGATE_PROXY_INTRODUCTION_H
#define MOONGATE_PROXY_INTRODUCTION_H

#include "net/conn.h"

struct introduction;

// Takes the conn until it is told, once and never at once: reason CLOSE_none, the conn's addresses are those of the
// header; else it is to be closed for that, and `why`. It is over by then. NULL when memory is out.
struct introduction *introduction_new(struct conn *conn, uint64_t timeout_ms,
                                      void (*told)(void *owner, enum close_reason reason, const char *why),
                                      void *owner) __attribute__((warn_unused_result));
// It is not told any more.
void introduction_free(struct introduction *introduction);

#endif
