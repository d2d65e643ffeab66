// SPDX-License-Identifier: BSD-2-Clause
// A probe asks a server once whether it is well, as `health` says: it connects, shakes hands, sends a request
// through an exchange of its own. When, how long and what follows from it is check.c's affair.
#ifndef MOONGATE_PROXY_PROBE_H
#define MOONGATE_PROXY_PROBE_H

#include "http/client_codec.h"
#include "http/inner.h"
#include "proxy/attempt.h"

enum probe_result {
    PROBE_GOOD,
    PROBE_BAD,
    PROBE_NOTHING,  // what this process lacks says nothing of a server
};

// What all probes of an upstream share; lies still, and outlives them.
struct probe_kit {
    const struct conf_health *health;
    struct conf_upstream conf;  // the upstream's, but that nothing is repeated and nothing kept
    struct exchange_site site;
};
void probe_kit_init(struct probe_kit *kit, const struct conf_upstream *conf, const struct conf_settings *settings);

// Lies in its owner.
struct probe {
    struct probe_kit *kit;
    struct server *server;
    void (*done)(struct probe *probe, enum probe_result result, const char *why);
    struct waiter waiter;         // while it connects
    struct client_codec *client;  // and then, but for tcp and tls
    struct inner inner;           // of http
    unsigned status;
    bool found;                   // the text that the body must contain
    bool ours;                    // it failed of what this process lacks
    unsigned tail_len;
    char tail[CONF_HEALTH_TEXT_MAX];  // the end of what has come of the body
    char why[STANDING_WHY_MAX];
};

// done() is called once, perhaps at once, unless probe_end() comes first.
void probe_begin(struct probe *probe, struct probe_kit *kit, struct server *server,
                 void (*done)(struct probe *probe, enum probe_result result, const char *why));
void probe_end(struct probe *probe);

#endif
