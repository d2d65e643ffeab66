// SPDX-License-Identifier: BSD-2-Clause
// One request with its response, whatever the protocols on both sides: the heart of moongate. exchange.c is
// one step machine; reading it tells the whole story.
//
// Who calls whom
//   downstream  the codec that received the request (h1_server.c). It creates the exchange, feeds the
//               request's body and is told the response through struct downstream_ops. It is done with the
//               exchange when it has called exchange_client_gone(), was told `finished`, or has given
//               up its conn (`detach`).
//   upstream    the codec that carries the request on (h1_client.c). exchange_dialled() gives it; it feeds
//               the response.
//   site        what the exchange needs to know of its frontend, filled in by proxy/frontend.c
//   hooks       scripts, filled in by script/ for each chain; NULL when there are none
//
// To add a step: the table in exchange.c. To add a hook: struct exchange_hooks, a step that calls it,
// script/hooks.h.
#ifndef MOONGATE_HTTP_EXCHANGE_H
#define MOONGATE_HTTP_EXCHANGE_H

#include "base/block.h"
#include "base/list.h"
#include "conf/conf.h"
#include "http/message.h"
#include "net/conn.h"

struct exchange;
struct resolver_guide;

enum step_result {
    STEP_MORE,  // go on with exchange->step at once
    STEP_WAIT,  // somebody will call exchange_run()
    STEP_DONE,  // the exchange is gone
};

//  X(name, documentation)
#define EXCHANGE_STEPS(X) \
    X(request, "the head is parsed; scripts look at it (request hook)") \
    X(route, "where to: route hook, then the frontend's routes") \
    X(dial, "waiting for a connection to the upstream server") \
    X(forward, "the request is being sent; waiting for the response head") \
    X(response, "the response head is there; scripts look at it (response hook)") \
    X(reply, "the head goes to the client") \
    X(relay, "bodies flow") \
    X(tunnel, "101 was sent; the conns leave for a relay") \
    X(finish, "logged; scripts look back (log hook); both sides are let go") \
    X(linger, "nothing is left of it but a log hook that waits")

enum exchange_step {
#define X(name, doc) EXCHANGE_##name,
    EXCHANGE_STEPS(X)
#undef X
    EXCHANGE_STEP_COUNT
};

// What came of calling the body hooks.
enum filter_result {
    FILTER_WAITS,  // for input (its end: x->req_in_ended, x->res_in_ended), for room, or for time
    FILTER_ENDED,   // what they have put on the way is all
    FILTER_PASSES,  // they look no more: the rest goes on as it is
};

// What a hook waits for that wants a whole body (exchange_body_whole).
enum body_wanted { WANTED_NONE, WANTED_REQUEST, WANTED_RESPONSE };

// What scripts do at each point. Each returns STEP_MORE when it has run to its end, STEP_WAIT when it yielded
// (it calls exchange_hook_done() when it has ended). A hook answers with exchange_respond(), fails with
// exchange_fail().
struct exchange_hooks {
    enum step_result (*request)(void *scripts, struct exchange *x);
    // Sets x->route_choice when it decides; leaves it empty to let the frontend's routes decide.
    enum step_result (*route)(void *scripts, struct exchange *x);
    enum step_result (*response)(void *scripts, struct exchange *x);
    // The body hooks, asked at every turn of events: each takes from x->req_in (x->res_in) what its
    // coroutines are ready for, puts what they write on x->req_body (x->res_body). After a wait for time
    // the script layer calls exchange_run(). The first call comes before the head is sent; who reads or
    // writes sets x->req_changed (x->res_changed), for then length and digests in it do not hold.
    enum filter_result (*request_body)(void *scripts, struct exchange *x);
    enum filter_result (*response_body)(void *scripts, struct exchange *x);
    // What a hook waits for by exchange_body_whole() has come: goes on with it, but not at once.
    void (*wake)(void *scripts, struct exchange *x);
    // An error of moongate's own stands in x->res and goes to the client next: may be changed, or answered
    // in another way. Not asked about what a hook answers.
    enum step_result (*error)(void *scripts, struct exchange *x);
    // The exchange is over and logged. When it waits, the client and the upstream are let go meanwhile:
    // x->down and x->up are NULL then.
    enum step_result (*log)(void *scripts, struct exchange *x);
    // What waits at a hook is overtaken by an error: it is not gone on with.
    void (*drop)(void *scripts, struct exchange *x);
    // The exchange ends: drop what waits on its behalf and its tables. Called once if any hook was called.
    void (*ended)(void *scripts, struct exchange *x);
    // Hooks that no script defines are not called.
    bool has_request, has_request_body, has_route, has_response, has_response_body, has_error, has_log;
};

// One for each frontend of a generation.
struct exchange_site {
    const char *name;                    // of the frontend, for the log; NULL: none
    void *owner;                         // of who filled it in
    bool inner;                          // for requests of scripts, not of clients: no hooks, no log
    const struct conf_settings *settings;
    const struct exchange_hooks *hooks;  // NULL: none
    void *scripts;
    struct resolver_guide *guide;        // proxy's: who is asked for names first; NULL: nobody is
    // Before a script is asked: sets x->settings to what holds for the path. 0, or the status of a refusal
    // with a reason; with 405 *ret_allow is the list of methods that are let in. NULL: everything is let in.
    unsigned (*admit)(struct exchange_site *site, struct exchange *x, const char **ret_why,
                      const char **ret_allow);
    // From x->route_choice or x->req.path: sets x->settings, x->upstream and its conf. Negative errno and a
    // text when there is none: -ENOENT no route, -EBADMSG several, as the path can be read in several ways.
    int (*route)(struct exchange_site *site, struct exchange *x, struct error *error);
    // A server has answered: what the upstream adds to the response (sticky). -ENOMEM. Not called where
    // x->upstream_conf has nothing to add.
    int (*answered)(struct exchange *x);
    // Gets a stream to x->upstream, later or at once: exchange_dialled() or exchange_dial_failed() follows.
    void (*dial)(struct exchange_site *site, struct exchange *x);
    void (*dial_cancel)(struct exchange_site *site, struct exchange *x);
    // What asking x->server has come to: none: its response head stands in x->res; outrun: another server's stands
    // in its place; else why there is none, by its fault. NULL: nobody wants to know.
    void (*asked)(struct exchange_site *site, struct exchange *x, enum close_reason reason);
    // For the second request of one that is hedged; x->upstream is the first's then. NULL: nothing is hedged.
    struct exchange_site *second;
    // Whether the request may be sent once more, as far as others are concerned. NULL: it may.
    bool (*may_retry)(struct exchange_site *site, struct exchange *x);
    // 101: both conns leave for a relay. Takes them and what was read but not passed on.
    void (*tunnel)(struct exchange_site *site, struct exchange *x, struct conn *client,
                   struct queue *from_client, struct conn *server, struct queue *from_server);
    // For a WebSocket whose client has no part in the handshake with the server (proxy/websocket.h).
    int (*websocket_offer)(struct exchange *x);
    bool (*websocket_accepted)(const struct exchange *x);
    // And for one whose server has none.
    int (*websocket_accept)(struct exchange *x);
    void (*log)(struct exchange_site *site, struct exchange *x);  // access log, counters; before it is freed
    void (*forget)(struct exchange_site *site, struct exchange *x);  // lets x->upstream go; may be NULL
    void (*hold)(struct exchange_site *site);                     // keeps the generation
    void (*drop)(struct exchange_site *site);
};

struct downstream_ops {
    // 1xx other than 101.
    int (*interim)(struct exchange *x, unsigned status, const struct headers *headers);
    // The response head; x->res is final. Framing fields are written by the codec.
    int (*head)(struct exchange *x);
    // Takes everything on x->res_body (and the end when x->res_ended). -ENOMEM; what waits then in the
    // client's conn, backlog() says.
    int (*body)(struct exchange *x);
    size_t (*backlog)(struct exchange *x);     // bytes that wait to be sent to the client
    void (*want_body)(struct exchange *x, bool want);  // go on or stop reading the request body
    struct conn *(*conn)(struct exchange *x);
    // 101 was sent: gives up its conn and what it read beyond the request.
    struct conn *(*detach)(struct exchange *x, struct queue *ret_read);
    // The exchange is over (x is freed afterwards). aborted: the response could not be completed as
    // announced.
    void (*finished)(struct exchange *x, bool aborted, enum close_reason reason);
};

struct upstream_ops {
    int (*head)(struct exchange *x);           // sends the request head from x->req
    int (*body)(struct exchange *x);           // takes x->req_body (and the end when x->req_ended)
    size_t (*backlog)(struct exchange *x);
    void (*want_body)(struct exchange *x, bool want);  // go on or stop reading the response
    // x->bulk was set: from now on no more is read at once. May be NULL.
    void (*bound)(struct exchange *x);
    struct conn *(*detach)(struct exchange *x, struct queue *ret_read);
    // What it carries is `to` from now on, at whose arena and response head it goes on; called when the head of the
    // response has come, or before. NULL: it cannot.
    void (*move)(struct exchange *from, struct exchange *to);
    // Done with it: reusable when the response was read to its end and the request sent to its end.
    void (*release)(struct exchange *x, bool reusable);
    bool refuses;  // the server may say that it has not looked at a request (UPSTREAM_REFUSED)
};

// How far a request had come when its upstream connection failed: what may be done again depends on it.
enum upstream_progress {
    UPSTREAM_UNSENT,      // no byte of it left: no server knows of it
    UPSTREAM_REFUSED,     // the server says that it has not looked at it (HTTP/2: REFUSED_STREAM, GOAWAY)
    UPSTREAM_UNANSWERED,  // it may have arrived, in part or whole; no byte came back
    UPSTREAM_ANSWERED,    // something did
};

// An attempt that failed, in the exchange's arena: what a route hook is told before the next one.
struct exchange_failure {
    const struct exchange_failure *before;
    struct slice server;  // as the log names it; empty: none was asked
    struct slice choice;  // what a script had chosen, empty: nothing
    enum close_reason reason;
    bool stale;           // it was the pooled connection's fault: the same server is as good as before
};

// Whether the request was sent to a second server as well, because the first was slow (exchange_hedge.c).
enum hedged {
    HEDGED_NO,        // it was not
    HEDGED_ARMED,     // a timer runs
    HEDGED_WITHHELD,  // it would have been
    HEDGED_RACING,    // both are asked
    HEDGED_ALONE,     // and the first has failed: x->up is NULL
    HEDGED_LOST,      // the second's answer is not taken, or there was none
    HEDGED_WON,       // x->up, x->server and x->res are the second's
};

// Monotonic microseconds as of the turn in which it happened; 0: has not.
struct exchange_times {
    uint64_t started;       // first byte of the request head
    uint64_t received;      // request head complete
    uint64_t dialled;       // upstream connection there
    uint64_t responded;     // upstream response head complete
    uint64_t first_byte;    // response head handed to the client's conn
    uint64_t ended;
};

struct exchange {
    struct arena arena;
    enum exchange_step step;
    bool running;                // inside exchange_run(): a nested call only notes that there is more
    bool again;
    struct exchange_site *site;
    const struct conf_settings *settings;  // the route's, once there is one

    struct request req;
    struct slice wire_target;    // the target as the client sent it, whatever scripts make of it: for the log
    struct response res;
    struct queue req_body, res_body;  // on their way, already without transfer coding
    bool req_ended, res_ended;   // the last byte is on the queue (or passed on)
    struct queue req_held;       // the request body as passed on so far, for another attempt (retry_body)
    struct queue req_again;      // goes on before req_body: of an earlier attempt, or a script's own
    struct queue res_first;      // goes on before res_body: what hooks wrote before the head was sent
    struct queue req_in, res_in; // what body hooks have still to read, when there are any
    bool req_in_ended, res_in_ended;
    bool req_filter, res_filter; // the body goes through hooks that have not run to their end
    bool req_changed, res_changed; // a hook has read or written some of it
    bool req_replaced;           // by a script's
    bool req_discard;            // what the client still sends is nobody's: a script has put another body
                                 // in its place, or has left the rest; what comes to req_body is dropped
    enum body_wanted wanted;     // while a hook waits for a whole body
    size_t wanted_most;          // or for more than this many bytes of it
    bool head_sent;              // something of the final response went to the client's conn
    bool req_sent;               // the request head went to the upstream's conn
    bool responded;              // a complete response stands in res: a script's or an error of ours
    bool failed;                 // it is an error of ours, which no script has answered instead
    bool client_gone;
    bool up_failed;              // after the response head: the upstream broke off
    bool upgraded;               // 101
    bool hooked;                 // a hook was called: hooks->ended is due
    bool hook_waits;             // a hook yielded: nothing goes on before exchange_hook_done()
    bool hook_ran;               // this step's hook has run to its end
    bool res_ready;              // the upstream's final response head stands in res
    bool prepared;               // the request's head was made ready for an upstream
    bool started;                // exchange_start() was called: it will be logged
    bool body_lost;              // a part of the request body was passed on and not held: no other attempt
    bool may_retry;              // try_timeout is over, and retry_budget has one more try for it
    bool waits_on;               // it is over, and there is no other try: response_timeout counts
    bool unguided;               // names are put to DNS alone: one of those who are asked first wants it
    bool fresh;                  // a pooled connection had failed: the next attempt gets a new one
    enum close_reason reason;

    const struct downstream_ops *down;
    void *down_owner;            // the codec's stream
    const struct upstream_ops *up;
    void *up_owner;
    struct upstream *upstream;   // chosen; proxy/upstream.h
    const struct conf_upstream *upstream_conf;  // its configuration, for time-outs and retries
    struct server *server;       // proxy's: of that upstream, the one that was asked last
    void *dialling;              // proxy's, between dial and exchange_dialled
    const void *admitted;        // proxy's: the route of the path as it came, NULL: none
    struct slice route_choice;   // a script's: an upstream's name, an address, or a name with a port
    struct slice balance_key;    // a script's: what `balance hash key` looks at
    struct slice proxy_tlvs;     // a script's: TLVs for the PROXY header that a connection for it begins with
    uint64_t sticky;             // proxy's: the server that the client's cookie names (proxy/sticky.h), 0: none
    bool sticky_read;            // proxy's: the cookie was looked for
    struct slice upstream_name;  // of the server that was asked, for the log
    unsigned attempt;            // 1 with the first dial
    const struct exchange_failure *failures;  // of earlier attempts, newest first
    uint64_t asked_ms;           // when the first attempt began, on the monotonic clock
    uint64_t tried;              // bit n: server n of the upstream was tried
    bool reused;                 // the upstream connection had served before
    bool second;                 // it asks a second server for another exchange, which owns it
    enum hedged hedged;
    struct hedge *hedge;         // exchange_hedge.c's; set from HEDGED_ARMED on

    uint32_t bulk;               // the downstream codec's: how many bytes of the response may be read at once, as
                                 // many exchanges share one client's connection; 0: as they come
    uint64_t handle;             // base/handle.h; 0 until a script asks
    void *script;                // the script layer's record
    char id[28];                 // request id, empty until exchange_id()
    struct exchange_times at;
    uint64_t req_bytes, res_bytes;  // body bytes from the client, to the client
};

// By the downstream codec: at the first byte of a request, to have a place for what it parses. NULL when
// memory is out.
struct exchange *exchange_new(struct exchange_site *site, const struct downstream_ops *down, void *down_owner)
    __attribute__((warn_unused_result));
// The head is complete in x->req: starts the steps. x may be gone afterwards.
void exchange_start(struct exchange *x);
// Runs steps until something must be waited for. x may be gone afterwards.
void exchange_run(struct exchange *x);
// A hook that returned STEP_WAIT has run to its end: goes on behind it.
void exchange_hook_done(struct exchange *x);
const char *exchange_id(struct exchange *x);

// By the downstream codec, which puts bytes on x->req_body or sets x->req_ended and follows with
// exchange_run(). The client is gone (or its half of the conn failed): everything is dropped; `finished` is
// not called.
void exchange_client_gone(struct exchange *x, enum close_reason reason);
// The request's body is, or is said to be, larger than max_body. Not before there is a route, whose settings
// count.
bool exchange_too_large(const struct exchange *x);
// The request turned out bad: its head (exchange_start() was not called), or later its chunk framing, a
// limit, a time-out. Answered with `status` if no response has begun; logged.
void exchange_client_error(struct exchange *x, unsigned status, enum close_reason reason, const char *why);

// By the dialler.
void exchange_dialled(struct exchange *x, const struct upstream_ops *up, void *up_owner, bool reused);
// connect: a server could not be connected to; nothing was sent, so that another may be tried.
void exchange_dial_failed(struct exchange *x, bool connect, unsigned status, enum close_reason reason);
// By the upstream codec: a final response head stands in x->res; bytes go to x->res_body, the end to
// x->res_ended.
void exchange_interim(struct exchange *x, unsigned status, const struct headers *headers);
// It broke before its response was complete: asked again where nothing can be done twice (retry() in
// exchange_event.c), else answered with `status`, or cut short when the response has begun.
void exchange_upstream_failed(struct exchange *x, enum upstream_progress progress, unsigned status,
                              enum close_reason reason);

// By the upstream codec: milliseconds that the server may take from the request's end to the response's head.
uint64_t exchange_answer_ms(const struct exchange *x);
// They are over: 0 when the request has failed by that, else for how many more it is waited, because there will be no
// other try.
uint64_t exchange_overdue(struct exchange *x, enum upstream_progress progress);

// By hooks and steps: answers it here and lets go of the upstream. Body bytes are copied; fields must be
// valid and their text live as long as the exchange. -EALREADY when the head was sent, -ENOMEM.
int exchange_respond(struct exchange *x, unsigned status, const struct headers *headers, struct slice body);
// By a request or route hook before the request is sent (response: by a response hook): the whole body, in
// *ret_body, where it stays. -EAGAIN: the hook is to wait, and is woken; -EFBIG: it has more than `most`
// bytes, or more than max_body; -EPIPE: the response broke off; -EALREADY: it is on its way. Asks a client
// for it that waits for 100 (Continue).
int exchange_body_whole(struct exchange *x, bool response, size_t most, const struct queue **ret_body)
    __attribute__((warn_unused_result));
// At the same places: puts another body in its place; framing and digests of the head follow. What the peer
// still sends of its own is dropped. -ENOMEM, -EALREADY, -EINVAL: a response that has none.
int exchange_replace_body(struct exchange *x, bool response, struct slice body)
    __attribute__((warn_unused_result));
// An error of ours: a short body with the status, its reason and the request id; logged by the caller.
void exchange_fail(struct exchange *x, unsigned status, enum close_reason reason);

const char *exchange_step_name(enum exchange_step step);

#endif
