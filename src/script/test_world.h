// SPDX-License-Identifier: BSD-2-Clause
// The world of one test of scripts (moongate --test): real configurations, frontends, script hosts and
// exchanges, with made-up clients and servers, a clock that stands still, and a log that is kept. One a
// process: each test runs in a process of its own (test_run.c). test_world.c holds what is loaded,
// test_traffic.c what passes, test_state.c hands both to the test file's Lua.
//
// Glossary
//   door      a frontend that is loaded, with its chain of scripts
//   client    a made-up connection to a door
//   visit     an exchange as its client sees it; outlives the exchange
//   stream    one attempt to pass an exchange on to a server, as the server sees it
#ifndef MOONGATE_SCRIPT_TEST_WORLD_H
#define MOONGATE_SCRIPT_TEST_WORLD_H

#include "base/log.h"
#include "base/timer.h"
#include "http/exchange.h"
#include "http/h1_parser.h"
#include "net/resolver.h"
#include "proxy/frontend.h"
#include "proxy/upstream.h"
#include "script/script.h"

// Bytes that grow; `at` ends with a zero byte, or is NULL. Memory that is out ends the process.
struct text {
    char *at;
    size_t len, room;
};
void text_add(struct text *text, const char *at, size_t len);
void text_take(struct text *text, struct queue *queue);
void text_release(struct text *text);

struct door {
    struct door *next;
    const struct conf_frontend *conf;
    struct frontend *frontend;
    struct script_chain *chain;  // NULL: no scripts
};

struct logged {
    enum log_level level;
    char *text;
};

enum client_state {
    CLIENT_WAITS,  // a hook of its beginning has yielded
    CLIENT_ADMITTED,
    CLIENT_TUNNELLED,  // by a tls_hello hook
    CLIENT_REJECTED,
    CLIENT_CLOSED,  // conn is gone
};

struct client {
    struct door *door;
    struct conn *conn;
    enum client_state state;
    enum { HOOK_OF_CONNECT, HOOK_OF_HELLO, HOOK_OF_TLS, HOOKS_ASKED } next;  // which is to be asked
    struct tls_pretended *tls;  // NULL: none
};

enum visit_state {
    VISIT_RUNS,      // x is set
    VISIT_ANSWERED,  // the response is complete
    VISIT_ABORTED,   // it broke off
    VISIT_LEFT,      // the client went
    VISIT_TUNNEL,    // 101: both sides went on without HTTP
};

struct visit {
    struct client *client;
    struct exchange *x;
    enum visit_state state;
    bool paused;     // the exchange wants no more of the body for the time being
    bool skip_body;  // HEAD, 204, 304
    struct text head, body, interim;
    enum close_reason reason;
    unsigned attempts;
    char upstream[128];  // the name of what was chosen last
    struct h1_parser parser;
};

enum stream_state {
    STREAM_DIALS,  // x->dialling
    STREAM_WAITS,  // x->up; no response head yet
    STREAM_BODY,   // its response body is coming
    STREAM_DONE,   // its response is complete
    STREAM_GONE,   // the exchange has let go of it
};

struct stream {
    struct visit *visit;  // NULL: a script asks by itself (gate.fetch)
    struct exchange *x;
    struct server *server;
    enum stream_state state;
    bool paused, head_now, answered;
    bool received;  // the whole request
    bool sized;     // `left` bytes of the announced length are to come
    uint64_t left;
    struct text head, body;
    struct timer timer;
    struct h1_parser parser;
};

// What the test's side has to look at.
enum event_kind { EVENT_DIAL, EVENT_HEAD, EVENT_RECEIVED, EVENT_RESUME, EVENT_KINDS };
struct event {
    enum event_kind kind;
    unsigned stream;
};

// What scripts do to a made-up peer of gate.tcp and gate.udp.
enum peer_event_kind { PEER_CONNECTS, PEER_OPENED, PEER_SENT, PEER_SHUT, PEER_CLOSED, PEER_EVENT_KINDS };
struct peer_event {
    enum peer_event_kind kind;
    unsigned peer;     // its number, from 1: one connection, or one socket for datagrams
    struct text text;  // the address (behind a zero byte its name), or what was sent; the taker's
};

struct world {
    const char *file;   // the configuration of -c, NULL: none
    char folder[1024];  // of the test's files; made by the parent
    void (*opened)(struct lua_State *lua);
    struct door *doors;  // newest first
    struct metrics metrics;
    struct resolver *resolver;  // knows what the test says
    uint64_t held;  // exchanges that live
    struct list upstreams;
    struct client **clients;
    struct visit **visits;
    struct stream **streams;
    struct event *events;
    struct logged *log;
    unsigned client_count, visit_count, stream_count, event_first, event_count, log_count;
};
extern struct world world;

// test_world.c
void world_begin(const char *file, const char *folder, void (*opened)(struct lua_State *lua));
// Ends what is left of exchanges and connections and frees everything.
void world_end(void);
// Loads a configuration with its scripts: a text, or the file of -c (NULL). The doors are the newest in
// world.doors. Init hooks have ended and worker_init hooks begun.
int world_load(const char *text, size_t len, struct error *error) __attribute__((warn_unused_result));
struct upstream *world_upstream(const char *name);
// Does what was put off; whether there was something.
bool world_turn(void);
// Moves the clock by at most `ms`, to the next timer that fires and not beyond: how far it got.
uint64_t world_advance(uint64_t ms);
void *world_grow(void *array, unsigned count, size_t size);  // room for one more; doubles

// test_traffic.c
void traffic_serve(struct exchange_site *site);  // the way to servers of a door
// tls: what TLS it has, which is taken; NULL: none.
struct client *traffic_connect(struct door *door, const struct addr *from, const struct addr *to,
                               struct tls_pretended *tls);
void traffic_close(struct client *client);
// `head` is the whole head of a request, as on the wire.
struct visit *traffic_request(struct client *client, struct slice head);
// False when the exchange wants none now, or is over.
bool traffic_send(struct visit *visit, struct slice piece, bool last);
void traffic_leave(struct visit *visit);
void traffic_accept(struct stream *stream);
void traffic_refuse(struct stream *stream, int error);
// False when the head is none.
bool traffic_answer(struct stream *stream, struct slice head);
bool traffic_push(struct stream *stream, struct slice piece);
void traffic_complete(struct stream *stream);
void traffic_break(struct stream *stream, enum close_reason reason);
void traffic_close_all(void);  // every client goes
void traffic_end(void);

// test_peers.c
void made_begin(void);
void made_release(void);  // every socket is closed
unsigned made_count(void);
bool made_event(struct peer_event *ret_event);
// Whether the connection is made: NULL, or a word of SOCKET_FAILURES; of datagrams what the next receive says.
// False: there is no such word.
bool made_answer(unsigned number, const char *word);
void made_push(unsigned number, struct slice text);
void made_end(unsigned number, bool reset);

#endif
