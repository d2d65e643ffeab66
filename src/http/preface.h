// SPDX-License-Identifier: BSD-2-Clause
// A connection of which nobody has said what it speaks: its first bytes do. The preface of HTTP/2 (RFC
// 9113, 3.4) cannot be a request of HTTP/1. A codec that makes way for the right one.
#ifndef MOONGATE_HTTP_PREFACE_H
#define MOONGATE_HTTP_PREFACE_H

#include "http/codec.h"

// As h1_server_new(). chosen() is called with the codec that takes over; or gone(), as by any codec.
struct server_codec *preface_new(struct conn *conn, const struct server_callbacks *callbacks, void *owner)
    __attribute__((warn_unused_result));

#endif
