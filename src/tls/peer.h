// SPDX-License-Identifier: BSD-2-Clause
// A peer's certificate as texts, for logs and scripts. For the files of src/tls/ alone; others ask tls_field().
#ifndef MOONGATE_TLS_PEER_H
#define MOONGATE_TLS_PEER_H

#include "tls/stream.h"

struct ssl_st;

// `field` is one of the client_ ones. Empty when the peer showed no certificate. Valid until the next call.
struct slice peer_field(struct ssl_st *ssl, enum tls_field field);

#endif
