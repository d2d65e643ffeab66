// SPDX-License-Identifier: BSD-2-Clause
// Diversions of divert.h: the time between the client's hello and the relay, in which the other side is being
// connected to.
#include "proxy/divert.h"

#include "base/counters.h"
#include "base/log.h"
#include "proxy/relay.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct diversion {
    struct conn *client, *server;
    struct queue read;
    struct exchange_site *site;
    char to[ADDR_TEXT_MAX];
};

static void over(void *owner) {
    struct diversion *diversion = owner;
    struct exchange_site *site = diversion->site;
    free(diversion);
    site->drop(site);
}

static void give_up(struct diversion *diversion, enum close_reason reason, const char *why) {
    if (why)
        log_warn("conn %llu: a script's tunnel to \"%s\" failed: %s",
                 (unsigned long long)diversion->client->id, diversion->to, why);
    queue_release(&diversion->read);
    conn_close(diversion->client, reason);
    conn_close(diversion->server, CLOSE_none);
    over(diversion);
}

static void on_data(struct conn *client, struct span span) {
    struct diversion *diversion = client->owner;
    if (queue_put_whole(&diversion->read, span) < 0)
        give_up(diversion, CLOSE_memory, NULL);
}

static void on_ended(struct conn *client, int error) {
    give_up(client->owner, error ? CLOSE_client_reset : CLOSE_client_closed, NULL);
}

static void on_timeout(struct conn *client) {
    counters->upstream_connect_errors++;
    give_up(client->owner, CLOSE_upstream_connect, "no answer in connect_timeout");
}

static const struct conn_handler waiting = { .data = on_data, .ended = on_ended, .timeout = on_timeout };
static const struct conn_handler connecting;

static void connected(struct conn *server, int error) {
    struct diversion *diversion = server->owner;
    struct conn *client = diversion->client;
    if (error) {
        counters->upstream_connect_errors++;
        give_up(diversion, CLOSE_upstream_connect, strerror(-error));
        return;
    }
    counters->upstream_connects++;
    struct queue nothing;
    queue_init(&nothing);
    relay_start(client, &diversion->read, server, &nothing, diversion->site->settings, over, diversion);
}

void divert_start(struct conn *client, struct queue *read, const struct addr *to, struct exchange_site *site,
                  uint64_t connect_timeout) {
    struct diversion *diversion = calloc(1, sizeof *diversion);
    if (!diversion) {
        queue_release(read);
        conn_close(client, CLOSE_memory);
        return;
    }
    *diversion = (struct diversion){ .client = client, .read = *read, .site = site };
    queue_init(read);
    addr_print(to, diversion->to);
    site->hold(site);
    conn_adopt(client, &waiting, diversion);
    conn_pause(client);
    diversion->server = conn_connect(to, NULL, connected, &connecting, diversion);
    if (!diversion->server)
        give_up(diversion, CLOSE_upstream_connect, strerror(errno));
    else
        timer_start(&client->timer, connect_timeout);
}
