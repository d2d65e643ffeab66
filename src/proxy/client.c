// SPDX-License-Identifier: BSD-2-Clause
// Accepted connections for client.h: the PROXY header, the connect hook, the TLS handshake, the codec, and who has to go when
// there is no room or their listener ends. What the frontend says of their exchanges is frontend.c's.
#include "proxy/client.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/log.h"
#include "base/slab.h"
#include "http/h1_server.h"
#include "http/h2_server.h"
#include "http/preface.h"
#include "proxy/allow.h"
#include "proxy/divert.h"
#include "proxy/introduction.h"
#include "proxy/relay.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum phase {
    PHASE_INTRODUCED,  // `conn` is set, on `introduced`: the PROXY header is being read
    PHASE_HOOK,        // `conn` is set, the connect hook decides
    PHASE_SHAKES,      // `conn` is set, on `shaking`: the TLS handshake is under way, with its hooks
    PHASE_SERVED,      // the codec has it
};

// An accepted connection. Which list it is on says what it does.
struct client {
    struct list link;
    enum phase phase;
    struct conn *conn;  // until the codec has it
    struct introduction *introduction;  // INTRODUCED
    struct server_codec *codec;
    // Where it came in, until its first request begins: that is answered even if its listener was removed
    // meanwhile. Valid while its listener is current, and while held.
    struct frontend *frontend;
    const char *listener;              // interned: lives as long as the process
    uint32_t since_ms;                 // the clock's lower part
    bool held;                         // `frontend`, by us
    bool rejected;                     // by a tls_hello hook
    const struct connect_hook *waits;  // a hook that has yielded
};

struct frontend *(*frontend_current)(const char *listener_name);

static struct slab client_slab = SLAB_INIT(sizeof(struct client), 512);
static struct list clients = { &clients, &clients };  // busy with a request
static struct list fresh = { &fresh, &fresh };        // none has come yet; the oldest first
static struct list idle = { &idle, &idle };           // between two; the longest idle first
static struct list shaking = { &shaking, &shaking };  // in the TLS handshake; the oldest first
static struct list introduced = { &introduced, &introduced };  // before all else; the oldest first
static unsigned shaking_count;
bool clients_refusing;
enum { FRESH_MS = 1000 };  // so old a connection without a request may be closed to make room
static unsigned client_count;

unsigned clients_count(void) {
    return client_count;
}

// ---- one client -----------------------------------------------------------------------------------------

static void hold_frontend(struct client *client) {
    if (!client->frontend || client->held)
        return;
    client->held = true;
    struct exchange_site *site = frontend_site(client->frontend);
    site->hold(site);
}

static void leave_frontend(struct client *client) {
    struct frontend *frontend = client->held ? client->frontend : NULL;
    client->frontend = NULL;
    client->held = false;
    struct exchange_site *site = frontend ? frontend_site(frontend) : NULL;
    if (site)
        site->drop(site);
}

static void client_free(struct client *client) {
    leave_frontend(client);
    list_remove(&client->link);
    client_count--;
    counters->connections_active--;
    slab_put(&client_slab, client);
}

static struct exchange_site *current_site(void *owner) {
    struct client *client = owner;
    struct frontend *frontend = frontend_current(client->listener);
    if (!frontend && client->held)
        frontend = client->frontend;
    return frontend ? frontend_site(frontend) : NULL;
}

static void codec_idle(void *owner, bool waits) {
    struct client *client = owner;
    leave_frontend(client);
    list_remove(&client->link);
    list_push_back(waits ? &idle : &clients, &client->link);
}

static bool overloaded(void *owner) {
    (void)owner;
    return clients_refusing;
}

static void codec_gone(void *owner) {
    client_free(owner);
}

static void codec_chosen(void *owner, struct server_codec *codec) {
    struct client *client = owner;
    client->codec = codec;
}

static const struct server_callbacks codec_callbacks = {
    .site = current_site,
    .idle = codec_idle,
    .overloaded = overloaded,
    .chosen = codec_chosen,
    .gone = codec_gone,
};

// Nothing stands between the client and its first request any more: the protocol is known.
static void serve(struct client *client) {
    struct conn *conn = client->conn;
    client->conn = NULL;
    client->phase = PHASE_SERVED;
    if (!conn->secure)
        client->codec = preface_new(conn, &codec_callbacks, client);
    else if (slice_eq(tls_alpn(conn), SLICE_LIT("h2")))
        client->codec = h2_server_new(conn, &codec_callbacks, client);
    else
        client->codec = h1_server_new(conn, &codec_callbacks, client);
    if (!client->codec) {
        client_free(client);
        return;
    }
    list_remove(&client->link);
    list_push_back(&fresh, &client->link);
    if (frontend_current(client->listener) == NULL)
        client->codec->ops->drain(client->codec);  // that the others were told while this one waited
}

static void reject(struct client *client, enum close_reason reason) {
    if (reason == CLOSE_rejected)
        counters->connections_rejected++;
    conn_close(client->conn, reason);
    client_free(client);
}

// ---- the TLS handshake ------------------------------------------------------------------------------------

static void leave_shaking(struct client *client) {
    list_remove(&client->link);
    shaking_count--;
    counters->tls_handshakes_active--;
}

static void cancel_hook(struct client *client) {
    if (client->waits)
        client->waits->cancel(frontend_options_of(client->frontend)->scripts, client->conn);
    client->waits = NULL;
}

static void end_handshake(struct client *client, enum close_reason reason) {
    cancel_hook(client);
    leave_shaking(client);
    reject(client, reason);
}

static void handshake_timeout(struct conn *conn) {
    counters->tls_handshake_timeouts++;
    end_handshake(conn->owner, CLOSE_tls_timeout);
}

// While a tls_done hook waits.
static void left_shaking(struct conn *conn, int error) {
    end_handshake(conn->owner, error ? CLOSE_client_reset : CLOSE_client_closed);
}
static const struct conn_handler shaking_handler = { .ended = left_shaking,
                                                     .broken = left_shaking,
                                                     .timeout = handshake_timeout };

// Runs a hook of the handshake. STEP_WAIT: decided() is called.
static enum step_result run_hook(struct client *client, const struct connect_hook *hook, bool *ret_reject,
                                 void (*decided)(struct conn *conn, void *owner, bool rejected)) {
    void *scripts = frontend_options_of(client->frontend)->scripts;
    enum step_result result = hook->run(scripts, client->conn, ret_reject, decided, client);
    client->waits = result == STEP_WAIT ? hook : NULL;
    return result;
}

static enum tls_answer answer_of(struct client *client, bool rejected) {
    client->rejected = rejected;
    return rejected ? TLS_REFUSE : tls_has_diversion(client->conn) ? TLS_DIVERT : TLS_GO_ON;
}

static void hello_decided(struct conn *conn, void *owner, bool rejected) {
    struct client *client = owner;
    client->waits = NULL;
    tls_answered(conn, answer_of(client, rejected));
}

static enum tls_answer on_hello(struct conn *conn, void *owner) {
    struct client *client = owner;
    bool rejected = false;
    (void)conn;
    const struct connect_hook *hook = frontend_options_of(client->frontend)->tls_hello;
    if (run_hook(client, hook, &rejected, hello_decided) == STEP_WAIT)
        return TLS_WAIT;
    return answer_of(client, rejected);
}

static void diverted(struct conn *conn, void *owner, struct queue *read, const char *to) {
    struct client *client = owner;
    const struct frontend_options *options = frontend_options_of(client->frontend);
    leave_shaking(client);
    divert_start(conn, read, to, frontend_site(client->frontend), options->addresses->resolver,
                 &options->conf->of_address);
    client_free(client);
}

enum { ALERT_LINGER_MS = 1000, ALERT_LINGER_BYTES = 64 << 10 };

static void handshake_failed(struct client *client, const char *why) {
    struct conn *conn = client->conn;
    if (client->rejected)
        counters->connections_rejected++;
    else
        counters->tls_handshake_errors++;
    if (log_enabled(LOG_LEVEL_info)) {
        char ip[ADDR_IP_MAX];
        addr_print_ip(conn_remote(conn), ip);
        log_info("listener \"%s\": TLS handshake with %s: %s", client->listener, ip, why);
    }
    // An alert may be on its way, which a reset for what is still unread would take with it.
    conn->linger_left = ALERT_LINGER_BYTES;
    conn_finish(conn, client->rejected ? CLOSE_rejected : CLOSE_tls_handshake, ALERT_LINGER_MS);
    client_free(client);
}

// The handshake is done, and its hook, if any, agreed.
static void serve_shaken(struct client *client) {
    struct frontend *current = frontend_current(client->listener);
    leave_shaking(client);
    timer_stop(&client->conn->timer);
    if (current) {
        leave_frontend(client);
        client->frontend = current;
    }
    serve(client);
}

static void done_decided(struct conn *conn, void *owner, bool rejected) {
    struct client *client = owner;
    client->waits = NULL;
    if (rejected) {
        end_handshake(client, CLOSE_rejected);
        return;
    }
    serve_shaken(client);
    tls_go_on(conn);
}

static void handshake_done(struct conn *conn, void *owner, int error, const char *why) {
    struct client *client = owner;
    if (error) {
        cancel_hook(client);
        leave_shaking(client);
        timer_stop(&conn->timer);
        handshake_failed(client, why);
        return;
    }
    counters->tls_handshakes++;
    counters->tls_resumed += slice_eq(tls_field(conn, TLS_resumed), SLICE_LIT("yes"));
    const struct connect_hook *hook = frontend_options_of(client->frontend)->tls_done;
    bool rejected = false;
    if (hook && run_hook(client, hook, &rejected, done_decided) == STEP_WAIT)
        tls_hold(conn);
    else if (rejected)
        end_handshake(client, CLOSE_rejected);
    else
        serve_shaken(client);
}

static const struct tls_callbacks tls_callbacks = { .done = handshake_done };
static const struct tls_callbacks tls_callbacks_hello = { .done = handshake_done,
                                                          .hello = on_hello,
                                                          .diverted = diverted };

// The client keeps the frontend, whose settings it is under, until the handshake is done.
static void shake_hands(struct client *client, struct tls_server *tls) {
    const struct frontend_options *options = frontend_options_of(client->frontend);
    struct conn *conn = client->conn;
    hold_frontend(client);
    if (shaking_count >= options->conf->tls_handshakes) {
        counters->tls_handshakes_shed++;
        end_handshake(container_of(shaking.next, struct client, link), CLOSE_limit);
    }
    client->phase = PHASE_SHAKES;
    list_remove(&client->link);
    list_push_back(&shaking, &client->link);
    shaking_count++;
    counters->tls_handshakes_active++;
    conn_adopt(conn, &shaking_handler, client);
    timer_start(&conn->timer, frontend_site(client->frontend)->settings->tls_handshake_timeout);
    if (tls_accept(conn, tls, options->tls_hello ? &tls_callbacks_hello : &tls_callbacks, client) < 0)
        end_handshake(client, CLOSE_memory);
}

// ---- the PROXY header -------------------------------------------------------------------------------------

static void end_introduction(struct client *client, enum close_reason reason) {
    introduction_free(client->introduction);
    reject(client, reason);
}

static bool old_enough(const struct client *client) {
    return (uint32_t)clock_ms() - client->since_ms >= FRESH_MS;
}

bool clients_may_shed(void) {
    return !list_empty(&idle) ||
        (!list_empty(&fresh) && old_enough(container_of(fresh.next, struct client, link))) ||
        (!list_empty(&introduced) && old_enough(container_of(introduced.next, struct client, link))) ||
        (!list_empty(&shaking) && old_enough(container_of(shaking.next, struct client, link)));
}

bool clients_shed(void) {
    if (!clients_may_shed())
        return false;
    if (list_empty(&idle) && list_empty(&fresh)) {
        counters->connections_shed++;
        if (!list_empty(&introduced)) {
            end_introduction(container_of(introduced.next, struct client, link), CLOSE_shed);
            return true;
        }
        end_handshake(container_of(shaking.next, struct client, link), CLOSE_shed);
        return true;
    }
    struct list *from = list_empty(&idle) ? &fresh : &idle;
    struct server_codec *codec = container_of(from->next, struct client, link)->codec;
    if (!codec->ops->shed(codec))
        return false;
    counters->connections_shed++;
    return true;
}

// ---- the connect hook -------------------------------------------------------------------------------------

// The hook agreed, or there is none.
static void admit(struct client *client) {
    struct tls_server *tls = frontend_tls(client->frontend, client->listener);
    if (tls)
        shake_hands(client, tls);
    else
        serve(client);
}

static void decided(struct conn *conn, void *owner, bool rejected) {
    struct client *client = owner;
    check_fatal(client->conn == conn);
    if (rejected)
        reject(client, CLOSE_rejected);
    else
        admit(client);
}

static void cancel_connect(struct client *client, enum close_reason reason) {
    const struct frontend_options *options = frontend_options_of(client->frontend);
    options->connect->cancel(options->scripts, client->conn);
    reject(client, reason);
}

// While a connect hook waits nothing is read; the time-out of a first request ends it, and the client's
// leaving.
static void waited_too_long(struct conn *conn) {
    cancel_connect(conn->owner, CLOSE_header_timeout);
}

static void left(struct conn *conn, int error) {
    struct client *client = conn->owner;
    if (error == 0 && frontend_site(client->frontend)->settings->half_close)
        return;  // what it has sent in full may be a request
    cancel_connect(client, error ? CLOSE_client_reset : CLOSE_client_closed);
}
static const struct conn_handler waiting_handler = { .ended = left, .timeout = waited_too_long };

// A name per listener that ever was: few, and clients point at them.
static const char *intern(const char *name) {
    static struct name {
        struct name *next;
        char text[];
    } * names;
    for (struct name *known = names; known; known = known->next)
        if (strcmp(known->text, name) == 0)
            return known->text;
    struct name *known = malloc(sizeof *known + strlen(name) + 1);
    if (!known)
        return NULL;
    strcpy(known->text, name);
    known->next = names;
    names = known;
    return known->text;
}

// connections_per_client.
static bool count_peer(struct client *client) {
    uint64_t most = frontend_site(client->frontend)->settings->connections_per_client;
    if (most == 0)
        return true;
    int rc = peers_enter(conn_remote(client->conn), most, &client->conn->peer);
    if (rc == 0)
        return true;
    static struct log_limit limit;
    uint32_t suppressed;
    counters->clients_limited++;
    if (log_limit_pass(&limit, 1, &suppressed)) {
        char ip[ADDR_IP_MAX];
        addr_print_ip(conn_remote(client->conn), ip);
        log_info("frontend \"%s\": client %s has %llu connections (connections_per_client): one more is "
                 "refused (%u others were refused before)",
                 frontend_site(client->frontend)->name, ip, (unsigned long long)most, suppressed);
    }
    return false;
}

// It is known whose connection it is.
static void meet(struct client *client) {
    struct frontend *frontend = client->frontend;
    if (!count_peer(client)) {
        client->conn->reset = true;
        reject(client, CLOSE_limit);
        return;
    }
    const struct frontend_options *options = frontend_options_of(frontend);
    if (frontend_logs(frontend) || options->scripts)
        conn_remote(client->conn);  // now: a peer that resets has no address afterwards
    if (options->connect) {
        bool rejected = false;
        if (options->connect->run(options->scripts, client->conn, &rejected, decided, client) == STEP_WAIT) {
            hold_frontend(client);
            conn_watch(client->conn);
            timer_start(&client->conn->timer, frontend_site(frontend)->settings->header_timeout);
            return;
        }
        if (rejected) {
            reject(client, CLOSE_rejected);
            return;
        }
    }
    admit(client);
}

static void tell_stranger(const struct client *client, const char *why) {
    static struct log_limit limit;
    uint32_t suppressed;
    char ip[ADDR_IP_MAX];
    if (!why || !log_limit_pass(&limit, 10, &suppressed))
        return;
    addr_print_ip(conn_remote(client->conn), ip);
    log_info("listener \"%s\": a connection of %s is closed: %s", client->listener, ip, why);
}

static void introduction_told(void *owner, enum close_reason reason, const char *why) {
    struct client *client = owner;
    struct frontend *current = frontend_current(client->listener);
    list_remove(&client->link);
    list_push_back(&clients, &client->link);
    client->phase = PHASE_HOOK;
    client->introduction = NULL;
    if (reason != CLOSE_none) {
        counters->proxy_header_errors += reason == CLOSE_proxy_header || reason == CLOSE_header_timeout;
        tell_stranger(client, why);
        reject(client, reason);
        return;
    }
    counters->proxy_headers++;
    conn_adopt(client->conn, &waiting_handler, client);
    if (current) {
        leave_frontend(client);
        client->frontend = current;
    }
    meet(client);
}

static void await_introduction(struct client *client) {
    const struct conf_allow *from = frontend_options_of(client->frontend)->frontend->proxy_protocol_from;
    const struct addr *peer = conn_remote(client->conn);
    if (addr_family(peer) != AF_UNIX && !allow_addr(from, peer)) {
        counters->proxy_headers_denied++;
        tell_stranger(client, "proxy_protocol_from does not name it");
        reject(client, CLOSE_proxy_denied);
        return;
    }
    client->phase = PHASE_INTRODUCED;
    list_remove(&client->link);
    list_push_back(&introduced, &client->link);
    hold_frontend(client);
    client->introduction = introduction_new(
        client->conn, frontend_site(client->frontend)->settings->header_timeout, introduction_told, client);
    if (!client->introduction)
        reject(client, CLOSE_memory);
}

void client_accept(struct frontend *frontend, const char *listener_name, int fd) {
    const char *listener = intern(listener_name);
    struct client *client = listener ? slab_get(&client_slab) : NULL;
    struct conn *conn = client ? conn_accepted(fd, &waiting_handler, client) : NULL;
    if (!conn) {
        static struct log_limit limit;
        uint32_t suppressed;
        if (log_limit_pass(&limit, 10, &suppressed))
            log_error("listener \"%s\": memory is out: a connection is closed", listener_name);
        if (!client)
            close(fd);  // else conn_accepted() did
        slab_put(&client_slab, client);
        return;
    }
    *client = (struct client){ .phase = PHASE_HOOK,
                               .conn = conn,
                               .frontend = frontend,
                               .listener = listener,
                               .since_ms = (uint32_t)clock_ms() };
    conn->listener = listener;
    list_push_back(&clients, &client->link);
    client_count++;
    counters->connections_active++;
    if (frontend_current(listener) == NULL)
        hold_frontend(client);
    if (frontend_expects_proxy(frontend, listener))
        await_introduction(client);
    else
        meet(client);
}

// ---- all of them ----------------------------------------------------------------------------------------

static void end_client(struct client *client, bool at_once) {
    if (client->phase != PHASE_SERVED && !at_once)
        return;  // serve() sees to it
    if (client->phase == PHASE_INTRODUCED)
        end_introduction(client, CLOSE_drain);
    else if (client->phase == PHASE_HOOK)
        cancel_connect(client, CLOSE_drain);
    else if (client->phase == PHASE_SHAKES)
        end_handshake(client, CLOSE_drain);
    else if (at_once)
        client->codec->ops->close(client->codec, CLOSE_drain);
    else
        client->codec->ops->drain(client->codec);
}

static void end_clients(bool (*chosen)(const struct client *client), bool at_once) {
    struct list *const lists[] = { &clients, &fresh, &idle, &introduced, &shaking };
    for (unsigned i = 0; i < sizeof lists / sizeof *lists; i++) {
        struct list all;
        list_init(&all);
        list_splice(&all, lists[i]);
        while (!list_empty(&all)) {
            struct client *client = container_of(all.next, struct client, link);
            list_remove(&client->link);
            list_push_back(lists[i], &client->link);
            if (chosen(client))
                end_client(client, at_once);
        }
    }
}

// The generation that they came in by goes: those without a request take the new one, or keep the old one
// when their listener goes with it.
static void move_fresh(void) {
    list_each(link, &fresh) {
        struct client *client = container_of(link, struct client, link);
        struct frontend *current = frontend_current(client->listener);
        if (client->held)
            continue;
        if (current)
            client->frontend = current;
        else
            hold_frontend(client);
    }
}

static bool any(const struct client *client) {
    (void)client;
    return true;
}

static bool without_listener(const struct client *client) {
    return frontend_current(client->listener) == NULL;
}

void clients_drain(bool everything) {
    move_fresh();
    end_clients(everything ? any : without_listener, false);
}

static bool any_tunnel(const struct conn *conn) {
    (void)conn;
    return true;
}

static bool tunnel_without_listener(const struct conn *conn) {
    return frontend_current(conn->listener) == NULL;
}

void clients_close_removed(void) {
    end_clients(without_listener, true);
    relay_close(tunnel_without_listener, CLOSE_drain);
}

void clients_close_all(void) {
    end_clients(any, true);
    relay_close(any_tunnel, CLOSE_drain);
}
