// SPDX-License-Identifier: BSD-2-Clause
// What the four files of the exchange say to each other: the steps (exchange.c), the bodies (exchange_body.c),
// what others tell it (exchange_event.c) and the second server that it may ask (exchange_hedge.c). Nobody else
// includes this.
#ifndef MOONGATE_HTTP_EXCHANGE_IMPL_H
#define MOONGATE_HTTP_EXCHANGE_IMPL_H

#include "http/exchange.h"

// Enters a step; exchange_run() runs it. Always STEP_MORE.
enum step_result exchange_go(struct exchange *x, enum exchange_step step);
// Lets go of the upstream, or of the way to one, when the answer is our own.
void exchange_drop_upstream(struct exchange *x, bool reusable);

// Its upstream has failed for good: a retry, where it may be, or the error.
void exchange_give_up(struct exchange *x, enum upstream_progress progress, unsigned status,
                      enum close_reason reason);
// Nobody knows it any more.
void exchange_free(struct exchange *x);

// The four places of exchange_hedge.c. The request is all sent: a second may follow, when the answer is late.
void hedge_arm(struct exchange *x);
// Whether a second one is out, which is waited for before anything follows from the failure of x's own server.
bool hedge_put_off(struct exchange *x, enum upstream_progress progress, unsigned status,
                   enum close_reason reason);
// x->second has a response head: it is the first's now, or of no use.
enum step_result hedge_answered(struct exchange *x);
// With x->hedge set: there will be no second one, or nobody waits for it.
void hedge_end(struct exchange *x);
void hedge_free(struct exchange *x);

// Through the body hooks, if they have not run to their end.
void bodies_filter_request(struct exchange *x);
void bodies_filter_response(struct exchange *x);
// Pushes what there is of the request body and holds the client to the pace of the upstream. -ENOMEM.
int bodies_push_request(struct exchange *x) __attribute__((warn_unused_result));
// Empties `first` in front of `body`.
void bodies_put_in_front(struct queue *first, struct queue *body);
// While a hook waits for a whole body its peer goes on beyond the watermarks.
void bodies_want_whole(struct exchange *x);
// Both sides are held back while nothing takes what they send; the steps that push let them go on.
void bodies_hold_back(struct exchange *x);
// What waits must not pin receive buffers: others need them.
void bodies_unpin(struct exchange *x);
void bodies_release(struct exchange *x);

#endif
