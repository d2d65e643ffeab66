// SPDX-License-Identifier: BSD-2-Clause
// What proxy/client.c and the codecs towards clients (h1_server.c and its neighbours) know of each other: a
// codec takes a conn whose protocol is known, makes exchanges of what comes, and says when it is gone.
//
// To add a codec: a struct that begins with struct server_codec, a constructor beside h1_server_new(), and
// the place where the protocol is chosen (admit() in proxy/client.c, preface.c).
#ifndef MOONGATE_HTTP_CODEC_H
#define MOONGATE_HTTP_CODEC_H

#include "http/exchange.h"

struct server_codec;

struct server_codec_ops {
    // Takes no further request: an idle connection closes now, a busy one after its exchanges. One that has
    // not brought its first request yet has a moment for it.
    void (*drain)(struct server_codec *codec);
    // Closes it if it waits for a request; false when it does not.
    bool (*shed)(struct server_codec *codec);
    // Ends everything at once.
    void (*close)(struct server_codec *codec, enum close_reason reason);
};

// The head of each codec. After any of the calls above, and within any callback of its conn, it may be gone.
struct server_codec {
    const struct server_codec_ops *ops;
};

// By the codec, to its owner.
struct server_callbacks {
    // The site of the next exchange; NULL: take no more requests.
    struct exchange_site *(*site)(void *owner);
    // It waits for its next request (true; not told for the first one), or begins one. May be NULL.
    void (*idle)(void *owner, bool idle);
    // Requests are to be refused with 503: memory is short. May be NULL.
    bool (*overloaded)(void *owner);
    // Another codec has taken the place of the one that was made, which is gone.
    void (*chosen)(void *owner, struct server_codec *codec);
    // The codec is gone, its conn too (or in other hands).
    void (*gone)(void *owner);
};

#endif
