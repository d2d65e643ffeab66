// SPDX-License-Identifier: BSD-2-Clause
// The header of the PROXY protocol with which a connection to a server begins, where its upstream has
// proxy_protocol: it announces the client. Connections are told apart by these bytes: one that began with the
// same ones is for the same client. Called by dial.c.
#ifndef MOONGATE_PROXY_ANNOUNCE_H
#define MOONGATE_PROXY_ANNOUNCE_H

#include "http/exchange.h"

// What is to be said of the exchange's client, in the exchange's arena; empty when the upstream has no
// proxy_protocol. -ENOMEM, -EMSGSIZE.
int announce_client(struct exchange *x, const struct conf_upstream *conf, struct slice *ret_bytes)
    __attribute__((warn_unused_result));
// For connections of our own: no client stands behind them. Valid for ever.
struct slice announce_nobody(const struct conf_upstream *conf);

#endif
