// SPDX-License-Identifier: BSD-2-Clause
// Names to addresses, without ever blocking the worker: c-ares does the DNS, the ring polls its sockets, and
// answers are kept as long as they hold (resolver_cache.h). Scripts (gate.resolve) and the proxy (names as
// addresses of servers) ask; a generation holds one, and those of a worker whose configuration says the same
// share it.
//
// Glossary
//   ask      one caller's wish to know, until it is answered or cancelled
//   lookup   one name being asked for by way of c-ares; any number of asks wait for it
//   entry    what the cache knows of a name
#ifndef MOONGATE_NET_RESOLVER_H
#define MOONGATE_NET_RESOLVER_H

#include "base/addr.h"
#include "base/error.h"
#include "conf/conf.h"
#include "net/resolver_cache.h"

#include <stdio.h>

struct resolver;

struct resolver_answer {
    const struct addr *addrs;  // with port 0, the best first; valid during the call
    const struct dns_service *services;  // in place of these, of DNS_SERVICES
    unsigned count;            // 0: there is none, `failure` and `text` say why
    uint64_t left_ms;          // that they still hold; without any: until it makes sense to ask again
    bool stale;                // they are past their time, but the resolvers do not answer
    enum dns_failure failure;
    const char *text;          // of the failure, as operators and scripts read it
};

// What an asker holds until he is told; resolver_cancel() is all that he may do with it.
struct resolver_ask {
    struct list link;
    void (*done)(void *owner, const struct resolver_answer *answer);
    void *owner;
    void (*cancelled)(struct resolver_ask *ask);  // a guide's; NULL: the resolver's own
};

// Who is asked for a name before DNS is: scripts (script/guide.c). The name is valid, in lower case and no address.
// As resolver_ask(); he asks the resolver without a guide where he has no answer.
struct resolver_guide {
    struct resolver_ask *(*ask)(struct resolver_guide *guide, struct resolver *resolver, struct slice name, int family,
                                void (*done)(void *owner, const struct resolver_answer *answer), void *owner);
};

// Reads /etc/resolv.conf where the configuration names no resolvers; while a configuration loads. `conf` is
// copied.
int resolver_new(const struct conf_resolver *conf, struct resolver **ret_resolver, struct error *error)
    __attribute__((warn_unused_result));
struct resolver *resolver_ref(struct resolver *resolver);
// Nobody may wait for it when the last one goes. Not from within an answer. NULL is allowed.
void resolver_unref(struct resolver *resolver);
// Whether a configuration may share it: it says the same, and /etc/resolv.conf is what it was.
bool resolver_fits(const struct resolver *resolver, const struct conf_resolver *conf);
const struct conf_resolver *resolver_conf(const struct resolver *resolver);

// Asks for the addresses of a name, or of an IP address, which is its own answer; `family` is AF_INET,
// AF_INET6 or AF_UNSPEC for both; or DNS_SERVICES for the name's SRV records as they are (RFC 2782), which
// resolver_ask_services() is to be preferred to. done() is called exactly once unless the ask is cancelled first: at once
// when the answer is known, and then NULL is returned; else later, from the ring's flush. The name need not
// live on. guide: is asked first; NULL: nobody is.
struct resolver_ask *resolver_ask(struct resolver *resolver, struct resolver_guide *guide, struct slice name, int family,
                                  void (*done)(void *owner, const struct resolver_answer *answer),
                                  void *owner);
// done() will not be called; what was begun goes on for the cache. NULL is allowed.
void resolver_cancel(struct resolver_ask *ask);

// A service's place: a target of an SRV record, with what is known of its addresses.
struct resolver_place {
    uint16_t priority, weight, port;
    struct slice target;
    const struct addr *addrs;  // with the record's port
    unsigned count;            // 0: `failure` says why
    enum dns_failure failure;
};

struct resolver_services {
    const struct resolver_place *places;  // by priority, target and port; valid during the call, as all of it
    unsigned count;                       // 0: there are none, `failure` and `text` say why
    uint64_t left_ms;                     // that all of it still holds, failures included
    bool stale;                           // some of it is past its time, but the resolvers do not answer
    enum dns_failure failure;
    const char *text;
};

struct resolver_services_ask;

// Asks for the SRV records of a name such as "_http._tcp.app.internal", and then for the addresses of their
// targets, all by way of the cache. done() as of resolver_ask().
struct resolver_services_ask *resolver_ask_services(
    struct resolver *resolver, struct resolver_guide *guide, struct slice name,
    void (*done)(void *owner, const struct resolver_services *services), void *owner);
// As resolver_cancel().
void resolver_cancel_services(struct resolver_services_ask *ask);

// What is known, a line for each name, the last used first, until `most` bytes are written:
//   NAME KIND STATE LEFT VALUES WHY    with a tab between two
// KIND: A, AAAA, A+AAAA or SRV. STATE: fresh, stale (past its time, the resolvers fail), asked (for, now), failed, expired.
// LEFT: milliseconds that it holds; stale and failed: until it is asked for again at the earliest. VALUES: with ", " between
// two, perhaps none; services as in a zone. WHY it failed last, perhaps nothing.
void resolver_print(const struct resolver *resolver, FILE *out, long most);

// For moongate -V: "c-ares 1.18.1".
const char *resolver_library(void);

// For tests of scripts (script/test_world.c): a resolver that asks nobody. It knows what it is told; a name
// is any number of addresses, or a failure, after `delay_ms`.
struct resolver *resolver_pretended(const struct conf_resolver *conf) __attribute__((warn_unused_result));
int resolver_pretend(struct resolver *resolver, struct slice name, const struct addr *addrs, unsigned count,
                     uint32_t ttl, enum dns_failure failure, uint64_t delay_ms)
    __attribute__((warn_unused_result));

#endif
