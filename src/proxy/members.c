// SPDX-License-Identifier: BSD-2-Clause
// Lines of names, and what the resolver says of them (members.h). An answer is compared with the servers that
// the line has: they are told apart by address and port.
#include "proxy/members.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/timer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

// How soon a name is asked for again at the soonest, and when its answer holds for no time at all.
enum { AGAIN_MIN_MS = 100, AGAIN_MS = 1000, WEIGHT_MAX = 256 };

//  X(name, what holds)
#define MEMBERS_STATES(X) \
    X(asked, "never answered: the servers are those before a reload, or none; the upstream counts it as unresolved") \
    X(good, "the last answer had addresses: they are the servers") \
    X(kept, "the resolvers fail: the servers are those of the last answer that there was") \
    X(none, "it has no servers: the last answer had no address, or there was never one")

enum members_state {
#define X(name, doc) MEMBERS_##name,
    MEMBERS_STATES(X)
#undef X
};

struct members {
    struct members *next;  // of the upstream
    struct upstream *upstream;
    const struct conf_server *line;
    struct resolver *resolver;
    struct resolver_ask *ask;  // of a name; NULL: not being asked for
    struct resolver_services_ask *services_ask;
    struct timer timer;  // until it is asked for again; runs unless it is being asked for
    enum members_state state;
    bool retired;
};

// What an answer wants.
struct member {
    struct addr addr;
    uint64_t weight;
    unsigned level;
};

struct wanted {
    struct member members[MEMBERS_MAX];
    unsigned count;
};

static void ask_again(struct timer *timer);

static const char *state_name(enum members_state state) {
    static const char *const names[] = {
#define X(name, doc) #name,
        MEMBERS_STATES(X)
#undef X
    };
    return names[state];
}

// One worker speaks for all: they learn the same, at nearly the same time.
static enum log_level level_of(const struct members *members, enum log_level level) {
    return members->upstream->worker == 0 && !members->retired ? level : LOG_LEVEL_debug;
}

static void set_state(struct members *members, enum members_state state, const char *why) {
    enum members_state before = members->state;
    const char *upstream = members->upstream->conf->name, *name = members->line->name;
    members->state = state;
    if (before == state)
        return;
    log_debug("upstream \"%s\": names of server \"%s\": %s -> %s", upstream, name, state_name(before),
              state_name(state));
    if (before == MEMBERS_asked) {
        // Those who have waited for it go to a server, or are told that there is none.
        members->upstream->unresolved--;
        ring_flush_later(&members->upstream->waker);
    }
    if (state == MEMBERS_good && before != MEMBERS_asked)
        LOG_AT(level_of(members, LOG_LEVEL_notice), "upstream \"%s\": server \"%s\" is resolved again", upstream,
                  name);
    else if (state == MEMBERS_kept)
        LOG_AT(level_of(members, LOG_LEVEL_warn),
                  "upstream \"%s\": server \"%s\" is not resolved: %s; its last addresses stay in use", upstream,
                  name, why);
    else if (state == MEMBERS_none)
        LOG_AT(level_of(members, LOG_LEVEL_warn),
                  "upstream \"%s\": server \"%s\" is down: it is not resolved: %s", upstream, name, why);
}

// ---- servers ----------------------------------------------------------------------------------------------

static void want(struct wanted *wanted, const struct addr *addr, uint64_t weight, unsigned level) {
    if (wanted->count == MEMBERS_MAX)
        return;
    for (unsigned i = 0; i < wanted->count; i++)
        if (addr_eq(&wanted->members[i].addr, addr))
            return;  // the first one has the better priority
    wanted->members[wanted->count++] = (struct member){ *addr, weight, level };
}

static struct server *find_server(const struct members *members, const struct addr *addr) {
    const struct upstream *upstream = members->upstream;
    for (unsigned i = 0; i < upstream->server_count; i++)
        if (upstream->servers[i]->line == members->line && addr_eq(&upstream->servers[i]->addr, addr))
            return upstream->servers[i];
    return NULL;
}

static bool is_wanted(const struct wanted *wanted, const struct server *server) {
    for (unsigned i = 0; i < wanted->count; i++)
        if (addr_eq(&wanted->members[i].addr, &server->addr))
            return true;
    return false;
}

static bool has_servers(const struct members *members) {
    for (unsigned i = 0; i < members->upstream->server_count; i++)
        if (members->upstream->servers[i]->line == members->line)
            return true;
    return false;
}

static void change(struct members *members, const char *what, const struct server *server) {
    LOG_AT(level_of(members, LOG_LEVEL_info), "upstream \"%s\": server \"%s\" %s address %s",
              members->upstream->conf->name, members->line->name, what, server->name);
}

// What memory did not suffice for comes with the next answer.
static void apply(struct members *members, const struct wanted *wanted) {
    struct upstream *upstream = members->upstream;
    for (unsigned i = 0; i < wanted->count; i++) {
        const struct member *member = &wanted->members[i];
        struct server *server = find_server(members, &member->addr);
        if (!server) {
            char name[ADDR_TEXT_MAX];
            addr_print(&member->addr, name);
            server = upstream_add(upstream, members->line, &member->addr, name);
            if (server) {
                uint64_t never = 0;
                change(members, "has the new", server);
                atomic_compare_exchange_strong(&server->standing->up_since_ms, &never, clock_ms());
            }
        }
        if (server) {
            server->weight = member->weight;
            server->level = server_level(members->line, member->level);
            roster_doubt(&upstream->roster);
        }
    }
    for (unsigned i = upstream->server_count; i-- > 0;) {
        struct server *server = upstream->servers[i];
        if (server->line == members->line && !is_wanted(wanted, server)) {
            change(members, "no longer has the", server);
            upstream_remove(server);
        }
    }
    // Whoever waits for a place may have been waiting for what is gone.
    ring_flush_later(&upstream->waker);
}

// ---- answers ----------------------------------------------------------------------------------------------

static void told_nothing(struct members *members, enum dns_failure failure) {
    static const struct wanted nothing;
    const char *why = dns_failure_text(failure);
    if (dns_failure_is_sure(failure))
        apply(members, &nothing);
    set_state(members, has_servers(members) ? MEMBERS_kept : MEMBERS_none, why);
}

static void told_addresses(struct members *members, const struct wanted *wanted, bool stale) {
    apply(members, wanted);
    if (stale)
        set_state(members, MEMBERS_kept, "the resolvers fail");
    else
        set_state(members, MEMBERS_good, NULL);
}

// The answer's own time, not that in whole seconds: requests are to follow what the DNS says when it ends.
static void wait(struct members *members, uint64_t left_ms) {
    uint64_t ms = left_ms == 0 ? AGAIN_MS : left_ms < AGAIN_MIN_MS ? AGAIN_MIN_MS : left_ms;
    if (!members->retired)
        timer_start(&members->timer, ms);
}

static void told(void *owner, const struct resolver_answer *answer) {
    struct members *members = owner;
    members->ask = NULL;
    struct wanted wanted;
    wanted.count = 0;
    for (unsigned i = 0; i < answer->count; i++) {
        struct addr addr = answer->addrs[i];
        addr_set_port(&addr, members->line->port);
        want(&wanted, &addr, members->line->weight, 0);
    }
    if (answer->count > 0)
        told_addresses(members, &wanted, answer->stale);
    else
        told_nothing(members, answer->failure);
    wait(members, answer->left_ms);
}

// Weights of services go to 65535, those of servers to 256; 0 is for a very small share.
static uint64_t scaled(unsigned weight, unsigned most) {
    uint64_t scaled = most > WEIGHT_MAX ? (uint64_t)weight * WEIGHT_MAX / most : weight;
    return scaled > 0 ? scaled : 1;
}

// A target that could not be asked for keeps the servers that it had.
static void told_services(void *owner, const struct resolver_services *answer) {
    struct members *members = owner;
    members->services_ask = NULL;
    struct wanted wanted;
    wanted.count = 0;
    unsigned most = 0, level = 0;
    enum dns_failure failure = answer->failure;
    bool unsure = answer->stale;
    for (unsigned i = 0; i < answer->count; i++)
        most = answer->places[i].weight > most ? answer->places[i].weight : most;
    for (unsigned i = 0; i < answer->count; i++) {
        const struct resolver_place *place = &answer->places[i];
        level += i > 0 && place->priority != answer->places[i - 1].priority;
        for (unsigned n = 0; n < place->count; n++)
            want(&wanted, &place->addrs[n], scaled(place->weight, most), level);
        if (place->count == 0) {
            failure = failure && !dns_failure_is_sure(failure) ? failure : place->failure;
            unsure = unsure || !dns_failure_is_sure(place->failure);
        }
    }
    if (unsure && answer->count > 0)
        for (unsigned i = 0; i < members->upstream->server_count; i++) {
            const struct server *server = members->upstream->servers[i];
            if (server->line == members->line)
                want(&wanted, &server->addr, server->weight, server->level);
        }
    if (wanted.count > 0)
        told_addresses(members, &wanted, unsure);
    else
        told_nothing(members, failure);
    wait(members, answer->left_ms);
}

// ---- life -------------------------------------------------------------------------------------------------

static void ask(struct members *members) {
    const struct conf_server *line = members->line;
    if (line->kind == SERVER_SERVICE)
        members->services_ask =
            resolver_ask_services(members->resolver, members->upstream->guide, slice_of(line->name), told_services, members);
    else
        members->ask = resolver_ask(members->resolver, members->upstream->guide, line->host, AF_UNSPEC, told, members);
}

static void ask_again(struct timer *timer) {
    ask(container_of(timer, struct members, timer));
}

// A reload must not cost servers because the resolvers fail just then.
static int inherit(struct members *members, const struct upstream *before) {
    const struct conf_server *line = members->line;
    for (unsigned i = 0; before && i < before->server_count; i++) {
        const struct server *old = before->servers[i];
        if (old->line->kind != line->kind || strcmp(old->line->name, line->name) != 0 ||
            find_server(members, &old->addr))
            continue;
        struct server *server = upstream_add(members->upstream, line, &old->addr, old->name);
        if (!server)
            return -ENOMEM;
        server->weight = line->kind == SERVER_NAME ? line->weight : old->weight;
        server->level = server_level(line, old->level);
    }
    return 0;
}

int members_new(struct upstream *upstream, const struct conf_server *line,
                const struct upstream_options *options) {
    struct members *members = calloc(1, sizeof *members), **end = &upstream->members;
    if (!members)
        return -ENOMEM;
    members->upstream = upstream;
    members->line = line;
    members->resolver = options->resolver;
    timer_init(&members->timer, ask_again);
    while (*end)
        end = &(*end)->next;
    *end = members;
    upstream->unresolved++;
    return inherit(members, options->before);
}

void members_go(struct upstream *upstream) {
    for (struct members *members = upstream->members; members; members = members->next)
        ask(members);
}

void members_retire(struct upstream *upstream) {
    for (struct members *members = upstream->members; members; members = members->next) {
        members->retired = true;
        timer_stop(&members->timer);
    }
}

void members_release(struct upstream *upstream) {
    while (upstream->members) {
        struct members *members = upstream->members;
        upstream->members = members->next;
        timer_stop(&members->timer);
        resolver_cancel(members->ask);
        resolver_cancel_services(members->services_ask);
        free(members);
    }
}
