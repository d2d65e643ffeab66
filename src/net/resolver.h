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

struct resolver;
struct resolver_ask;

struct resolver_answer {
    const struct addr *addrs;  // with port 0, the best first; valid during the call
    unsigned count;            // 0: there is none, `failure` and `text` say why
    uint32_t ttl;              // seconds that they still hold
    bool stale;                // they are past their time, but the resolvers do not answer
    enum dns_failure failure;
    const char *text;          // of the failure, as operators and scripts read it
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

// Asks for the addresses of a name, or of an IP address, which is its own answer; `family` is AF_INET,
// AF_INET6 or AF_UNSPEC for both. done() is called exactly once unless the ask is cancelled first: at once
// when the answer is known, and then NULL is returned; else later, from the ring's flush. The name need not
// live on.
struct resolver_ask *resolver_ask(struct resolver *resolver, struct slice name, int family,
                                  void (*done)(void *owner, const struct resolver_answer *answer),
                                  void *owner);
// done() will not be called; what was begun goes on for the cache. NULL is allowed.
void resolver_cancel(struct resolver_ask *ask);

// For moongate -V: "c-ares 1.18.1".
const char *resolver_library(void);

// Letters, digits, "-" and "_" in labels of at most 63, not all digits at the end; 253 in all, perhaps with a
// dot.
bool resolver_is_name(struct slice text);

// For tests of scripts (script/test_world.c): a resolver that asks nobody. It knows what it is told; a name
// is any number of addresses, or a failure, after `delay_ms`.
struct resolver *resolver_pretended(const struct conf_resolver *conf) __attribute__((warn_unused_result));
int resolver_pretend(struct resolver *resolver, struct slice name, const struct addr *addrs, unsigned count,
                     uint32_t ttl, enum dns_failure failure, uint64_t delay_ms)
    __attribute__((warn_unused_result));

#endif
