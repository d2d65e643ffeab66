// SPDX-License-Identifier: BSD-2-Clause
// Diversions of divert.h: the time between the client's hello and the relay, in which the other side is being
// looked up and connected to.
#include "proxy/divert.h"

#include "base/counters.h"
#include "base/host_name.h"
#include "base/log.h"
#include "net/eyeballs.h"
#include "proxy/allow.h"
#include "proxy/relay.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { ADDRS_MAX = 16 };  // of a name, that are tried

struct diversion {
    struct conn *client;
    struct queue read;
    struct exchange_site *site;
    struct resolver_ask *ask;  // NULL: none is under way
    struct eyeballs eyeballs;
    struct addr addrs[ADDRS_MAX];
    unsigned count;
    uint64_t stagger;
    uint16_t port;
    enum close_reason reason;  // for want of one, and why
    const char *why;
    char to[];
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
    resolver_cancel(diversion->ask);
    eyeballs_stop(&diversion->eyeballs);
    queue_release(&diversion->read);
    conn_close(diversion->client, reason);
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

static void connected(struct eyeballs *eyeballs, struct conn *server, const struct addr *addr, int error) {
    struct diversion *diversion = container_of(eyeballs, struct diversion, eyeballs);
    struct conn *client = diversion->client;
    (void)addr;
    if (!server) {
        counters->upstream_connect_errors++;
        give_up(diversion, diversion->reason, strerror(-error));
        return;
    }
    counters->upstream_connects++;
    struct queue nothing;
    queue_init(&nothing);
    relay_start(client, &diversion->read, server, &nothing, diversion->site->settings, over, diversion);
}

// The diversion may be gone afterwards.
static void connect_any(struct diversion *diversion) {
    int rc = 0;
    if (diversion->count > 0)
        rc = eyeballs_start(&diversion->eyeballs, diversion->addrs, diversion->count, diversion->stagger);
    if (rc < 0)
        diversion->why = strerror(-rc);
    if (diversion->count == 0 || rc < 0)
        give_up(diversion, diversion->reason, diversion->why);
}

// ---- names ------------------------------------------------------------------------------------------------

static void take(struct diversion *diversion, const struct resolver_answer *answer) {
    const struct conf_allow *allow = diversion->site->settings->route_allow;
    for (unsigned i = 0; i < answer->count && diversion->count < ADDRS_MAX; i++)
        if (allow_addr(allow, &answer->addrs[i])) {
            struct addr *addr = &diversion->addrs[diversion->count++];
            *addr = answer->addrs[i];
            addr_set_port(addr, diversion->port);
        }
    if (diversion->count > 0)
        return;
    bool denied = answer->count > 0 || answer->failure == DNS_refused;
    diversion->reason = denied ? CLOSE_upstream_denied : CLOSE_upstream_name;
    diversion->why = answer->count > 0 ? "route_allow lets none of its addresses in" : answer->text;
}

// Called at once when the answer is known: then divert_start() goes on.
static void resolved(void *owner, const struct resolver_answer *answer) {
    struct diversion *diversion = owner;
    bool later = diversion->ask != NULL;
    diversion->ask = NULL;
    take(diversion, answer);
    if (later)
        connect_any(diversion);
}

// ---- what is called ---------------------------------------------------------------------------------------

static int parse(struct slice to, struct addr *ret_addr, struct slice *ret_name, uint16_t *ret_port,
                 struct error *error) {
    ret_name->len = 0;
    if (host_name_split(to, ret_name, ret_port))
        return 0;
    int rc = addr_parse(to, ret_addr, error);
    bool all = to.len > 0 && to.at[0] == '*';
    if (rc == 0 && (all || (addr_family(ret_addr) != AF_UNIX && addr_port(ret_addr) == 0)))
        return error_set(error, -EINVAL, "expected one address with a port");
    return rc;
}

int divert_check(struct slice to, struct error *error) {
    struct addr addr;
    struct slice name;
    uint16_t port;
    return parse(to, &addr, &name, &port, error);
}

void divert_start(struct conn *client, struct queue *read, const char *to, struct exchange_site *site,
                  struct resolver *resolver, const struct conf_upstream *how) {
    struct slice name;
    struct error error;
    struct diversion *diversion = calloc(1, sizeof *diversion + strlen(to) + 1);
    if (!diversion) {
        queue_release(read);
        conn_close(client, CLOSE_memory);
        return;
    }
    diversion->client = client;
    diversion->read = *read;
    diversion->site = site;
    diversion->reason = CLOSE_upstream_connect;
    diversion->stagger = how->connect_stagger;
    eyeballs_init(&diversion->eyeballs, connected);
    strcpy(diversion->to, to);
    queue_init(read);
    site->hold(site);
    conn_adopt(client, &waiting, diversion);
    conn_pause(client);
    timer_start(&client->timer, how->connect_timeout);
    if (parse(slice_of(to), &diversion->addrs[0], &name, &diversion->port, &error) < 0)
        diversion->why = error.text;
    else if (name.len == 0)
        diversion->count = 1;
    else if (!resolver)
        diversion->why = "there is no resolver here";
    else
        diversion->ask = resolver_ask(resolver, site->guide, name, AF_UNSPEC, resolved, diversion);
    if (!diversion->ask)
        connect_any(diversion);
}
