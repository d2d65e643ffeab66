// SPDX-License-Identifier: BSD-2-Clause
// The choice among the servers of an upstream (balance.h): one function for each algorithm, which looks at the
// roster, and one for when nobody on it is left.
#include "proxy/balance.h"

#include "http/cookie.h"
#include "proxy/attempt.h"
#include "proxy/places.h"
#include "proxy/sticky.h"

#include <limits.h>
#include <sys/random.h>

// Slots of a ring that are looked at for one key: with fewer than one in twenty servers well that may be too few.
enum { RING_STEPS = 128, DRAWS = 4 };

// One choice under way.
struct choice {
    struct upstream *upstream;
    const struct exchange *x;
    struct roster *roster;
    bool full;  // one had to be left out because it has max_active
};

static bool full(const struct server *server) {
    uint64_t most = server->upstream->conf->max_active;
    return (most > 0 && places_full(server)) || !attempt_has_room(server);
}

// Whether one of the roster may be chosen; what others have learned since the roster was made counts.
static bool fits(struct choice *choice, const struct server *server) {
    if (choice->x->tried & server->bit)
        return false;
    if (server_admin(server) != ADMIN_up || (!choice->roster->panic && server_is_down(server))) {
        roster_doubt(choice->roster);
        return false;
    }
    if (!full(server))
        return true;
    choice->full = true;
    return false;
}

// ---- round robin ------------------------------------------------------------------------------------------

static struct server *rotate(struct choice *choice) {
    struct roster *roster = choice->roster;
    unsigned at = roster->turn < roster->count ? roster->turn : 0;
    for (unsigned i = 0; i < roster->count; i++) {
        struct server *server = roster->places[at].server;
        at = at + 1 < roster->count ? at + 1 : 0;
        if (!fits(choice, server))
            continue;
        if (choice->x->tried == 0)  // else it is nobody's turn: who comes next begins where this one did not
            roster->turn = at;
        return server;
    }
    return NULL;
}

// Each candidate gains its share, the one with most is chosen and pays the sum: so what a server gets is spread
// evenly over the others' turns.
static void gain(struct server *server, uint64_t share, struct server **best, int64_t *total) {
    server->current_weight += (int64_t)share;
    *total += (int64_t)share;
    if (!*best || server->current_weight > (*best)->current_weight)
        *best = server;
}

static struct server *round_robin(struct choice *choice) {
    struct roster *roster = choice->roster;
    struct server *best = NULL;
    int64_t total = 0;
    if (roster->even)
        return rotate(choice);
    for (unsigned i = 0; i < roster->count; i++)
        if (fits(choice, roster->places[i].server))
            gain(roster->places[i].server, roster->places[i].share, &best, &total);
    if (best)
        best->current_weight -= total;
    return best;
}

// ---- by load ----------------------------------------------------------------------------------------------

// Here, and in other workers a moment ago.
static uint64_t load_of(const struct server *server) {
    return server->counts->active + server->elsewhere;
}

// Less than zero: a has less for its share than b.
static int compare_loads(const struct server *a, const struct server *b) {
    uint64_t of_a = load_of(a) * b->share, of_b = load_of(b) * a->share;
    return of_a < of_b ? -1 : of_a > of_b;
}

static struct server *least_conn(struct choice *choice) {
    struct roster *roster = choice->roster;
    struct server *best = NULL;
    unsigned at = roster->turn < roster->count ? roster->turn : 0, best_at = 0;
    for (unsigned i = 0; i < roster->count; i++) {
        struct server *server = roster->places[at].server;
        if (fits(choice, server) && (!best || compare_loads(server, best) < 0)) {
            best = server;
            best_at = at;
        }
        at = at + 1 < roster->count ? at + 1 : 0;
    }
    if (!best || roster->even) {
        roster->turn = best_at + 1;
        return best;
    }
    struct server *least = best;
    int64_t total = 0;
    best = NULL;
    for (unsigned i = 0; i < roster->count; i++) {
        struct server *server = roster->places[i].server;
        if (compare_loads(server, least) == 0 && fits(choice, server))
            gain(server, roster->places[i].share, &best, &total);
    }
    best->current_weight -= total;
    return best;
}

// SplitMix64: enough to spread load, and nothing more.
static uint64_t draw(struct roster *roster) {
    if (roster->random == 0)
        (void)!getrandom(&roster->random, sizeof roster->random, GRND_NONBLOCK);
    uint64_t z = roster->random += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static struct server *draw_server(struct roster *roster) {
    unsigned low = 0, high = roster->count - 1;
    if (roster->even)
        return roster->places[(__uint128_t)draw(roster) * roster->count >> 64].server;
    uint64_t mark = (uint64_t)((__uint128_t)draw(roster) * roster->total >> 64);
    while (low < high) {  // the first whose end is beyond the mark
        unsigned middle = low + (high - low) / 2;
        if (roster->places[middle].end > mark)
            high = middle;
        else
            low = middle + 1;
    }
    return roster->places[low].server;
}

static struct server *random2(struct choice *choice) {
    struct roster *roster = choice->roster;
    struct server *one = NULL;
    if (roster->count == 0)
        return NULL;
    for (unsigned i = 0; i < DRAWS; i++) {
        struct server *server = draw_server(roster);
        if (server == one || !fits(choice, server))
            continue;
        if (one)
            return compare_loads(server, one) < 0 ? server : one;
        one = server;
    }
    return one ? one : round_robin(choice);
}

// ---- by a key ---------------------------------------------------------------------------------------------

// The same in every process and on every machine.
static bool hash_of(const struct exchange *x, const struct conf_upstream *conf, uint64_t *ret_hash) {
    struct slice text = { 0 };
    uint32_t position = 0;
    const struct header *header;
    struct conn *client;
    uint8_t key[16];
    switch (conf->hash) {
    case HASH_CLIENT:
        client = x->down && x->down->conn ? x->down->conn((struct exchange *)(uintptr_t)x) : NULL;
        if (!client)
            return false;
        addr_key(conn_remote(client), key);
        text = slice_make((const char *)key, sizeof key);
        break;
    case HASH_HEADER:
        header = headers_next(&x->req.headers, slice_of(conf->hash_name), &position);
        if (header)
            text = header->value;
        break;
    case HASH_COOKIE:
        (void)!cookies_find(&x->req.headers, slice_of(conf->hash_name), &text);
        break;
    case HASH_PATH:
        text = x->req.path;
        break;
    case HASH_URI:
        text = x->req.target;
        break;
    case HASH_KEY:
        text = x->balance_key;
        break;
    }
    *ret_hash = slice_hash(text, 0);
    return text.len > 0;
}

// Whether it has so much of what is under way that one more would be above its share of all by more than
// `load` allows.
static bool loaded(const struct choice *choice, const struct server *server) {
    uint64_t percent = choice->upstream->conf->hash_load;
    if (percent == 0)
        return false;
    __uint128_t most = (__uint128_t)percent * (choice->upstream->active + 1) * server->share;
    return (__uint128_t)server->active * 100 * choice->roster->total >= most;
}

static struct server *by_key(struct choice *choice) {
    struct roster *roster = choice->roster;
    const struct hash_ring *ring = &roster->ring;
    struct server *one = NULL, *last = NULL;
    uint64_t hash;
    if (!hash_of(choice->x, choice->upstream->conf, &hash))
        return round_robin(choice);
    unsigned slot = hash_ring_slot(hash);
    for (unsigned step = 0; ring->slots && ring->count > 0 && step < RING_STEPS; step++) {
        struct server *server = hash_ring_at(ring, slot, step);
        if (server == last || !server->listed || !fits(choice, server))
            continue;
        if (!loaded(choice, server))
            return server;
        last = server;
        one = one ? one : server;
    }
    for (unsigned i = 0, at = roster->count ? hash % roster->count : 0; i < roster->count; i++) {
        struct server *server = roster->places[at].server;
        at = at + 1 < roster->count ? at + 1 : 0;
        if (!fits(choice, server))
            continue;
        if (!loaded(choice, server))
            return server;
        one = one ? one : server;
    }
    return one;
}

static struct server *by_algorithm(struct choice *choice) {
    switch (choice->upstream->conf->balance) {
    case BALANCE_ROUND_ROBIN:
        break;
    case BALANCE_LEAST_CONN:
        return least_conn(choice);
    case BALANCE_RANDOM2:
        return random2(choice);
    case BALANCE_HASH:
        return by_key(choice);
    }
    return round_robin(choice);
}

// ---- the whole --------------------------------------------------------------------------------------------

enum rank {
    RANK_GOOD,
    RANK_SPARE,  // down, it was said; but those that are well have failed this request twice
    RANK_TRIED,
    RANK_DOWN,
    RANK_NEVER,
};

enum { FAILED_TWICE = 3 };  // x->attempt then

static enum rank rank_of(const struct choice *choice, const struct server *server) {
    bool tried = choice->x->tried & server->bit;
    if (server_admin(server) != ADMIN_up)
        return RANK_NEVER;
    if (!server_is_down(server))
        return tried ? RANK_TRIED : RANK_GOOD;
    return !tried && choice->x->attempt >= FAILED_TWICE ? RANK_SPARE : RANK_DOWN;
}

// The smaller the better: a server of a lower level that is well before one that has failed this request.
static uint64_t merit(const struct choice *choice, const struct server *server) {
    return (uint64_t)rank_of(choice, server) << 32 | server->level;
}

// Nobody on the roster: all were tried.
static struct server *second_best(struct choice *choice) {
    const struct upstream *upstream = choice->upstream;
    const uint64_t never = (uint64_t)RANK_NEVER << 32;
    uint64_t best_merit = never, full_merit = never;
    struct server *best = NULL;
    int64_t total = 0;
    for (unsigned i = 0; i < upstream->server_count; i++) {
        const struct server *server = upstream->servers[i];
        uint64_t of_it = merit(choice, server), *least = full(server) ? &full_merit : &best_merit;
        if (of_it < *least)
            *least = of_it;
    }
    // A good one that is busy is worth waiting for; one that failed is not asked instead.
    choice->full = full_merit < best_merit;
    if (best_merit >= never || choice->full)
        return NULL;
    for (unsigned i = 0; i < upstream->server_count; i++) {
        struct server *server = upstream->servers[i];
        if (merit(choice, server) == best_merit && !full(server))
            gain(server, server_weight(server), &best, &total);
    }
    best->current_weight -= total;
    return best;
}

static struct server *single(struct choice *choice) {
    struct server *server = choice->upstream->servers[0];
    if (server_admin(server) != ADMIN_up)
        return NULL;
    choice->full = full(server);
    return choice->full ? NULL : server;
}

struct server *balance_choose(struct upstream *upstream, const struct exchange *x, bool *ret_wait) {
    struct choice choice = { .upstream = upstream, .x = x, .roster = &upstream->roster };
    struct server *server = x->sticky ? sticky_find(upstream, x) : NULL;
    places_drop_claim(upstream);  // of one that was chosen and not asked
    if (server) {
        *ret_wait = full(server) || !places_claim(server);
        return *ret_wait ? NULL : server;
    }
    if (upstream->server_count == 1) {
        server = single(&choice);
    } else {
        roster_look(upstream);
        server = by_algorithm(&choice);
        if (!server && choice.roster->doubted) {
            roster_look(upstream);
            server = by_algorithm(&choice);
        }
        if (!server && !choice.full)
            server = second_best(&choice);
    }
    if (server && upstream->conf->max_active > 0 && !places_claim(server)) {
        server = NULL;
        choice.full = true;
    }
    *ret_wait = !server && choice.full;
    return server;
}

struct server *balance_rival(struct upstream *upstream, const struct exchange *x, const struct server *beside) {
    struct choice choice = { .upstream = upstream, .x = x, .roster = &upstream->roster };
    if (upstream->server_count < 2 || (x->sticky && x->sticky == beside->token))
        return NULL;
    places_drop_claim(upstream);
    roster_look(upstream);
    for (unsigned i = 0; i < choice.roster->count; i++) {
        struct server *server = choice.roster->places[i].server;
        if (server->line == beside->line && addr_family(&server->addr) != addr_family(&beside->addr) &&
            fits(&choice, server))
            return places_claim(server) ? server : NULL;
    }
    struct server *server = by_algorithm(&choice);
    return server && places_claim(server) ? server : NULL;
}

struct server *balance_other(struct upstream *upstream, const struct exchange *x) {
    struct choice choice = { .upstream = upstream, .x = x, .roster = &upstream->roster };
    if (upstream->server_count < 2 || !list_empty(&upstream->waiting))
        return NULL;
    roster_look(upstream);
    struct server *server = by_algorithm(&choice);
    return server && list_empty(&server->stuck) && places_claim(server) ? server : NULL;
}
