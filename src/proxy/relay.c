// SPDX-License-Identifier: BSD-2-Clause
// Relays of relay.h. Each side is read until the other side's output backs up beyond buffer_high, and again
// when it has fallen to buffer_low. An orderly end of one direction is passed on as a half-close; the relay
// ends when both have.
#include "proxy/relay.h"

#include "base/counters.h"
#include "base/log.h"
#include "base/slab.h"

struct side {
    struct conn *conn;
    bool ended;  // its peer sends no more
};

struct relay {
    struct list link;
    struct side sides[2];  // conn->index says which
    const struct conf_settings *settings;
    void (*ended)(void *owner);
    void *owner;
};

static struct slab relay_slab = SLAB_INIT(sizeof(struct relay), 64);
static struct list relays = { &relays, &relays };
static unsigned count;

unsigned relay_count(void) {
    return count;
}

static void end(struct relay *relay, enum close_reason reason, bool orderly) {
    for (int i = 0; i < 2; i++) {
        if (orderly)
            conn_finish(relay->sides[i].conn, reason, 0);
        else
            conn_close(relay->sides[i].conn, reason);
    }
    list_remove(&relay->link);
    count--;
    counters->tunnels_active--;
    relay->ended(relay->owner);
    slab_put(&relay_slab, relay);
}

static void touch(struct relay *relay) {
    timer_start(&relay->sides[0].conn->timer, relay->settings->tunnel_timeout);
}

static void on_data(struct conn *conn, struct span span) {
    struct relay *relay = conn->owner;
    struct conn *other = relay->sides[!conn->index].conn;
    if (conn->index == 0)
        counters->bytes_from_clients += span.len;
    else
        counters->bytes_to_clients += span.len;
    if (queue_put(&other->out, span) < 0) {
        end(relay, CLOSE_memory, false);
        return;
    }
    conn_flush(other);
    touch(relay);
    if (conn_waiting(other) > relay->settings->buffer_high) {
        conn->bulk = (uint32_t)relay->settings->buffer_high;
        conn_pause(conn);
    }
}

static void on_ended(struct conn *conn, int error) {
    struct relay *relay = conn->owner;
    struct side *other = &relay->sides[!conn->index];
    relay->sides[conn->index].ended = true;
    if (error)
        end(relay, conn->index == 0 ? CLOSE_client_reset : CLOSE_upstream_reset, false);
    else if (other->ended)
        end(relay, CLOSE_none, true);
    else
        conn_shutdown(other->conn);
}

static void on_written(struct conn *conn) {
    struct relay *relay = conn->owner;
    struct side *other = &relay->sides[!conn->index];
    touch(relay);
    if (!other->ended && !other->conn->want_read && conn_waiting(conn) <= relay->settings->buffer_low)
        conn_read(other->conn);
}

static void on_broken(struct conn *conn, int error) {
    (void)error;
    end(conn->owner, conn->index == 0 ? CLOSE_client_reset : CLOSE_upstream_reset, false);
}

static void on_timeout(struct conn *conn) {
    end(conn->owner, CLOSE_tunnel_timeout, false);
}

static const struct conn_handler handler = {
    .data = on_data,
    .ended = on_ended,
    .written = on_written,
    .broken = on_broken,
    .timeout = on_timeout,
};

void relay_start(struct conn *client, struct queue *from_client, struct conn *server,
                 struct queue *from_server, const struct conf_settings *settings, void (*ended)(void *owner),
                 void *owner) {
    struct relay *relay = slab_get(&relay_slab);
    if (!relay) {
        log_error("no memory for a tunnel");
        queue_release(from_client);
        queue_release(from_server);
        conn_close(client, CLOSE_memory);
        conn_close(server, CLOSE_memory);
        ended(owner);
        return;
    }
    *relay = (struct relay){ .sides = { { .conn = client }, { .conn = server } },
                             .settings = settings,
                             .ended = ended,
                             .owner = owner };
    list_push_back(&relays, &relay->link);
    count++;
    counters->tunnels++;
    counters->tunnels_active++;
    client->send_limits = server->send_limits = (struct pace_limits){ .stall_ms = settings->send_timeout };
    client->index = 0;
    server->index = 1;
    queue_move(&server->out, from_client);
    queue_move(&client->out, from_server);
    conn_flush(client);
    conn_flush(server);
    timer_stop(&server->timer);
    conn_adopt(client, &handler, relay);
    conn_adopt(server, &handler, relay);
    touch(relay);
    for (int i = 0; i < 2; i++) {
        struct conn *conn = relay->sides[i].conn;
        if (conn_ended(conn)) {
            on_ended(conn, 0);
            if (list_empty(&relays) || relays.prev != &relay->link)
                return;  // both had ended
        } else {
            conn_read(conn);
        }
    }
}

void relay_close(bool (*chosen)(const struct conn *client), enum close_reason reason) {
    list_each(link, &relays) {
        struct relay *relay = container_of(link, struct relay, link);
        if (chosen(relay->sides[0].conn))
            end(relay, reason, false);
    }
}
