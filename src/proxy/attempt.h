// SPDX-License-Identifier: BSD-2-Clause
// An attempt: a connection to a server that is being made, TLS included, and those who wait for it. Where a
// connection carries several exchanges (HTTP/2), or may turn out to, those that come while it is being made
// wait for it together: the first goes as soon as it is there, the others once the server has said how many it
// takes. Called by dial.c.
#ifndef MOONGATE_PROXY_ATTEMPT_H
#define MOONGATE_PROXY_ATTEMPT_H

#include "http/client_codec.h"
#include "proxy/upstream.h"

struct attempt;
struct waiter;

// What becomes of one who waits: exactly one of these, never from within attempt_join(). The waiter has left
// the attempt by then, and may ask the same server again at once.
struct waiter_ops {
    // Here is a connection for it.
    void (*made)(struct waiter *waiter, struct client_codec *client);
    // why: of a TLS handshake; NULL: of the connection itself.
    void (*failed)(struct waiter *waiter, struct server *server, int error, const char *why);
    // The connection is there but has no room for it: to be asked for anew.
    void (*again)(struct waiter *waiter, struct server *server);
    // After attempt_alone(), instead of `made`: the connection itself, the waiter's from now on. h2: it is one of
    // HTTP/2.
    void (*alone)(struct waiter *waiter, struct conn *conn, bool h2);
};

struct waiter {
    const struct waiter_ops *ops;
    struct attempt *attempt;  // NULL: it waits for none
    struct slice announced;   // what a new connection begins with (announce.h), for as long as it waits;
                              // empty: that there is no client, where the upstream wants that to be said
    struct list link;
};

// Waits for a connection that is being made, or begins one. Negative errno when it could not be begun; the
// server is told. The waiter's ops are set.
int attempt_join(struct server *server, struct waiter *waiter) __attribute__((warn_unused_result));
// Begins one that nobody else gets and that says nothing of the server here: for checks (check.h). bare: without
// TLS. The waiter's ops have `alone` and `failed`.
int attempt_alone(struct server *server, struct waiter *waiter, bool bare) __attribute__((warn_unused_result));
// It waits no more; an attempt that nobody waits for ends, but for one that has connected.
void attempt_leave(struct waiter *waiter);
// The same, because it took too long: when the attempt ends with that, it counts as one that failed.
void attempt_give_up(struct waiter *waiter);
// Whether the server was reached: what is left is TLS, or its word on how many exchanges it takes.
bool attempt_is_connected(const struct waiter *waiter);
// Whether one more exchange could be given to the server now, or once a connection is made.
bool attempt_has_room(const struct server *server);
// What this process lacks (descriptors, memory) says nothing of a server.
bool attempt_error_is_ours(int error);

// Begins one that nobody waits for: the connection goes to the pool. Where one may carry several exchanges, one
// that is there or on its way is enough.
void attempt_prepare(struct server *server);
unsigned attempt_count(const struct server *server);  // under way

void attempts_release(struct server *server);  // nobody may wait any more

#endif
