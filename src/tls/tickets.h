// SPDX-License-Identifier: BSD-2-Clause
// Keys of session tickets (RFC 5077, RFC 8446 4.6.1). They are in memory that the master shares with all workers and
// alone writes: a session that began with one worker is resumed by any other, after a reload and after a
// worker's death, too. A listener may have keys of its own from files instead, for several machines.
//
// The first key encrypts, all decrypt. A new key comes first and the last one goes: a ticket is good for at
// least TICKET_KEYS - 1 rotations, unless its own lifetime ends earlier.
#ifndef MOONGATE_TLS_TICKETS_H
#define MOONGATE_TLS_TICKETS_H

#include "base/error.h"
#include "base/slice.h"

enum { TICKET_KEYS = 3, TICKET_FILE_BYTES = 80 };

struct ticket_key {
    unsigned char name[16], mac[32], cipher[32];
};

struct ticket_ring {
    unsigned count;
    struct ticket_key *keys;
};

// By the master, before it forks: makes the memory, with a first key.
int tickets_share(struct error *error) __attribute__((warn_unused_result));
// By the master: a new key for new tickets.
void tickets_rotate(void);
// By a worker: from now on it can only read them.
void tickets_seal(void);

// What a file of TICKET_FILE_BYTES random bytes gives.
struct ticket_key ticket_key_of(struct slice bytes);

struct ssl_ctx_st;
// Tickets of this context are with the ring's keys, or when it has none with the shared ones. The ring must
// live as long as the context and what was begun with it.
void tickets_use(struct ssl_ctx_st *ctx, const struct ticket_ring *ring);

#endif
