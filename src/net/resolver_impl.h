// SPDX-License-Identifier: BSD-2-Clause
// What the files of the resolver share. resolver.c: who asks, who is told, and life; resolver_lookup.c: one
// name being asked for; resolver_channel.c: c-ares, with its servers, sockets and time-outs;
// resolver_pretend.c: answers that are made up for tests of scripts. Nobody else includes this.
//
// c-ares calls back from the middle of its own work, so answers are told in the ring's next flush: whoever is
// told may ask again, or end whatever he likes but the resolver.
//
// Who owns what
//   lookup   c-ares, until it calls back; of those that were given up nothing else is left
//   ask      the caller, until it is told or cancels; on its lookup's list
//   watched  a socket of c-ares's: the ring, until the poll's last completion; then whoever closed it
#ifndef MOONGATE_NET_RESOLVER_IMPL_H
#define MOONGATE_NET_RESOLVER_IMPL_H

#include "base/timer.h"
#include "net/resolver.h"
#include "ring/ring.h"

#include <ares.h>
#include <sys/stat.h>

// What tells whether a file is still the one that was read.
struct file_mark {
    struct timespec changed;
    ino_t inode;
    off_t size;
};

struct resolver {
    unsigned refs;
    struct conf_resolver conf;
    struct dns_cache cache;
    ares_channel channel;   // NULL: pretended
    struct file_mark mark;  // of /etc/resolv.conf, where no servers are configured
    struct list watched;
    struct list lookups;        // asked for
    struct list over;           // ended, not told
    unsigned lookup_count;      // those that c-ares has
    struct ring_flush flusher;  // tells, and sets the timer
    struct timer timer;         // of c-ares's next time-out
    struct pretended *pretended;
};

struct lookup {
    struct list link;
    struct resolver *resolver;
    struct dns_entry *entry;
    struct list asks;
    struct timer timer;  // resolver_timeout; pretended: until it is answered
    enum {
        LOOKUP_ASKED,     // c-ares has it; the entry points here
        LOOKUP_OVER,      // on the list of those to be told; the entry points here
        LOOKUP_GIVEN_UP,  // c-ares has it and nobody waits; entry is NULL
    } state;
};

// ---- resolver.c
// One without a channel.
struct resolver *resolver_make(const struct conf_resolver *conf) __attribute__((warn_unused_result));
// Answers are told, and the timer of c-ares's is set, in the ring's next flush.
static inline void resolver_work_later(struct resolver *resolver) {
    ring_flush_later(&resolver->flusher);
}

// ---- resolver_lookup.c
// Has the entry's name asked for. NULL: it cannot be, *ret_failure says why.
struct lookup *lookup_begin(struct resolver *resolver, struct dns_entry *entry,
                            enum dns_failure *ret_failure);
// Nobody waits, and c-ares has let go of it.
void lookup_free(struct lookup *lookup);
// What became of it; then it is over: c-ares has let go of it, and who waits is told soon.
void lookup_succeeded(struct lookup *lookup, const struct addr *addrs, unsigned count, uint64_t ttl);
void lookup_found_services(struct lookup *lookup, const struct dns_service *services, unsigned count,
                           uint64_t ttl);
void lookup_failed(struct lookup *lookup, enum dns_failure failure);
void lookup_over(struct lookup *lookup);

// ---- resolver_channel.c
int channel_open(struct resolver *resolver, struct error *error) __attribute__((warn_unused_result));
// Lookups are told ARES_EDESTRUCTION.
void channel_close(struct resolver *resolver);
// After anything was asked or heard: c-ares's next time-out.
void channel_set_timer(struct resolver *resolver);
// Of /etc/resolv.conf.
struct file_mark channel_system_mark(void);
bool file_mark_same(const struct file_mark *a, const struct file_mark *b);

// ---- resolver_pretend.c
// Answers a lookup that was just begun, perhaps at once.
void pretend_begin(struct lookup *lookup);
void pretend_release(struct resolver *resolver);

#endif
