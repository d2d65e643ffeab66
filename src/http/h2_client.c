// SPDX-License-Identifier: BSD-2-Clause
// The HTTP/2 codec towards upstream servers: the connection and its end. Its streams are
// h2_client_stream.c's, where it waits is dial.c's affair. How the parts work together: h2_client_impl.h.
#include "http/h2_client.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/log.h"
#include "base/slab.h"
#include "http/h2_client_impl.h"

#include <errno.h>

enum { CONNECTION_WINDOW = 16 * 1024 * 1024 };

static struct slab client_slab = SLAB_INIT(sizeof(struct h2_client), 16);

static const char *const state_names[] = { "settling", "open", "leaving", "dead" };

void h2_client_set_state(struct h2_client *client, enum client_state state) {
    log_debug("conn %llu: h2 client %s -> %s, %u streams",
              client->public.conn ? (unsigned long long)client->public.conn->id : 0,
              state_names[client->state], state_names[state], client->public.streams);
    client->state = state;
}

void h2_client_send_later(struct h2_client *client) {
    if (client->state != DEAD)
        ring_flush_later(&client->flusher);
}

// The connection is over. `reason` becomes of what has begun.
static void die(struct h2_client *client, int error, unsigned status, enum close_reason reason) {
    if (client->state == DEAD)
        return;
    bool settling = client->state == SETTLING;
    list_each(link, &client->streams) h2_up_note(container_of(link, struct h2_up, link), status, reason);
    client->busy++;
    h2_client_set_state(client, DEAD);
    conn_close(client->public.conn, reason);
    client->public.conn = client->session.conn = NULL;
    list_remove(&client->flusher.link);
    if (settling)
        client->public.callbacks->settled(&client->public, error);
    h2_client_run(client);
    client->busy--;
    if (client->public.streams == 0 && !client->freed)
        client->public.callbacks->lost(&client->public);
}

static void broken_session(struct h2_client *client, int error) {
    bool memory = error == -ENOMEM;
    client->spoiled |= memory;
    die(client, error, memory ? 503 : 502, memory ? CLOSE_memory : CLOSE_upstream_protocol);
}

// nghttp2 has told the server what rule it broke, and reads no more. That still leaves; the streams end here.
static void end_broken(struct h2_client *client) {
    static struct log_limit limit;
    uint32_t suppressed;
    bool memory = client->told_off == NGHTTP2_INTERNAL_ERROR;  // which nghttp2 says for itself
    client->spoiled |= memory;
    enum close_reason reason = memory ? CLOSE_memory : CLOSE_upstream_protocol;
    if (!memory && log_limit_pass(&limit, 10, &suppressed))
        log_warn("upstream \"%s\": conn %llu: the server broke the rules of HTTP/2: %s", client->conf->name,
                 (unsigned long long)client->public.conn->id, nghttp2_http2_strerror(client->told_off));
    list_each(link, &client->streams)
        h2_up_note(container_of(link, struct h2_up, link), memory ? 503 : 502, reason);
    conn_finish(client->public.conn, reason, 0);
    client->public.conn = NULL;
    die(client, memory ? -ENOMEM : -EPROTO, memory ? 503 : 502, reason);
}

static void flush(struct ring_flush *flusher) {
    struct h2_client *client = container_of(flusher, struct h2_client, flusher);
    client->busy++;
    int rc = h2_session_send(&client->session);
    list_each(link, &client->fed) {
        struct h2_up *stream = container_of(link, struct h2_up, fed);
        list_remove(link);
        if (rc == 0 && queue_unpin(&stream->body.queue) < 0)
            log_warn("no memory to copy a body out of receive buffers (request %s)", exchange_id(stream->x));
    }
    if (rc < 0)
        broken_session(client, rc);
    else if (client->told_off)
        end_broken(client);
    else
        h2_client_run(client);
    client->busy--;
    h2_client_leave(client);
}

// ---- the conn ---------------------------------------------------------------------------------------------

static void sooner(uint64_t *ms, uint64_t at) {
    uint64_t now = clock_ms(), left = at > now ? at - now : 1;
    if (at && left < *ms)
        *ms = left;
}

static void set_timer(struct h2_client *client) {
    uint64_t ms = UINT64_MAX, ping = client->conf->http2_ping;
    if (client->state == DEAD)
        return;
    sooner(&ms, client->settle_by);
    sooner(&ms, client->idle_by);
    sooner(&ms, client->pinged ? client->ping_by : ping ? client->heard_ms + ping : 0);
    if (ms == UINT64_MAX)
        timer_stop(&client->public.conn->timer);
    else
        timer_start(&client->public.conn->timer, ms);
}

static void on_data(struct conn *conn, struct span span) {
    struct h2_client *client = h2_client_of(conn->owner);
    bool settling = client->state == SETTLING;
    unsigned room = client->public.ops->room(&client->public);
    client->busy++;
    client->heard_ms = clock_ms();
    if (client->pinged) {
        client->pinged = false;
        set_timer(client);
    }
    client->feeding = span.block;
    ssize_t n = nghttp2_session_mem_recv(client->session.ng, (const uint8_t *)span.at, span.len);
    block_unref(span.block);
    if (n < 0) {
        broken_session(client, n == NGHTTP2_ERR_NOMEM ? -ENOMEM : -EPROTO);
    } else {
        if (settling && client->settled) {
            client->settle_by = 0;
            if (client->state == SETTLING)
                h2_client_set_state(client, OPEN);
            h2_up_settled(client);
            client->public.callbacks->settled(&client->public, 0);
        }
        h2_client_run(client);
    }
    if (client->state != DEAD) {
        h2_client_send_later(client);
        if (!settling && client->public.ops->room(&client->public) > room)
            client->public.callbacks->roomier(&client->public);
        // Nothing holds a connection that takes no more requests and has none.
        if (client->state == LEAVING && client->public.streams == 0 && !client->freed)
            client->public.callbacks->lost(&client->public);
    }
    client->busy--;
    h2_client_leave(client);
}

static void on_ended(struct conn *conn, int error) {
    struct h2_client *client = h2_client_of(conn->owner);
    client->busy++;
    die(client, error ? error : -ECONNRESET, 502, error ? CLOSE_upstream_reset : CLOSE_upstream_closed);
    client->busy--;
    h2_client_leave(client);
}

static void on_written(struct conn *conn) {
    struct h2_client *client = h2_client_of(conn->owner);
    if (conn_waiting(conn) < H2_WAITING_MAX && nghttp2_session_want_write(client->session.ng))
        h2_client_send_later(client);
}

// What it still has to say, GOAWAY above all, comes before its end.
static void on_broken(struct conn *conn, int error) {
    struct h2_client *client = h2_client_of(conn->owner);
    log_debug("conn %llu: upstream send failed: %d", (unsigned long long)conn->id, error);
    if (conn_ended(conn)) {
        on_ended(conn, error);
        return;
    }
    if (client->state == OPEN)
        h2_client_set_state(client, LEAVING);
}

static void on_timeout(struct conn *conn) {
    struct h2_client *client = h2_client_of(conn->owner);
    uint64_t now = clock_ms();
    client->busy++;
    if (client->settle_by && now >= client->settle_by) {
        log_warn("upstream \"%s\": a server did not begin HTTP/2 in connect_timeout", client->conf->name);
        die(client, -ETIMEDOUT, 504, CLOSE_upstream_timeout);
    } else if (client->pinged && now >= client->ping_by) {
        counters->upstream_pings_lost++;
        log_warn("upstream \"%s\": conn %llu: no answer to PING in connect_timeout", client->conf->name,
                 (unsigned long long)conn->id);
        die(client, -ETIMEDOUT, 504, CLOSE_upstream_reset);
    } else if (client->idle_by && now >= client->idle_by && client->public.streams == 0) {
        client->public.callbacks->lost(&client->public);
    } else if (!client->pinged && client->conf->http2_ping &&
               now >= client->heard_ms + client->conf->http2_ping) {
        client->pinged = true;
        client->ping_by = now + client->conf->connect_timeout;
        if (nghttp2_submit_ping(client->session.ng, NGHTTP2_FLAG_NONE, NULL) == 0)
            h2_client_send_later(client);
    }
    if (!client->freed)
        set_timer(client);
    client->busy--;
    h2_client_leave(client);
}

static const struct conn_handler handler = {
    .data = on_data,
    .ended = on_ended,
    .written = on_written,
    .broken = on_broken,
    .timeout = on_timeout,
};

// ---- struct client_codec_ops ------------------------------------------------------------------------------

static unsigned h2_room(const struct client_codec *public) {
    const struct h2_client *client = container_of(public, struct h2_client, public);
    if (client->state >= LEAVING)
        return 0;
    uint64_t most = client->conf->http2_streams;
    uint32_t theirs =
        nghttp2_session_get_remote_settings(client->session.ng, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
    if (client->state == OPEN && theirs < most)
        most = theirs;
    return most > public->streams ? (unsigned)(most - public->streams) : 0;
}

static void h2_idle(struct client_codec *public, uint64_t ms) {
    struct h2_client *client = h2_client_of(public);
    client->idle_by = clock_ms() + ms;
    set_timer(client);
}

// The object goes when nothing on the stack uses it.
void h2_client_leave(struct h2_client *client) {
    if (!client->freed || client->busy > 0)
        return;
    check_soft(list_empty(&client->streams));
    list_remove(&client->flusher.link);
    if (client->spoiled)
        h2_session_abandon(client->session.ng);
    else
        nghttp2_session_del(client->session.ng);
    slab_put(&client_slab, client);
}

static void h2_free(struct client_codec *public, enum close_reason reason) {
    struct h2_client *client = h2_client_of(public);
    list_remove(&public->link);
    if (client->state != DEAD) {
        struct conn *conn = public->conn;
        bool orderly = nghttp2_session_terminate_session(client->session.ng, NGHTTP2_NO_ERROR) == 0 &&
            h2_session_send(&client->session) == 0;
        client->spoiled |= !orderly;
        h2_client_set_state(client, DEAD);
        if (orderly)
            conn_finish(conn, reason, 0);
        else
            conn_close(conn, reason);
        public->conn = client->session.conn = NULL;
        list_remove(&client->flusher.link);
    }
    client->freed = true;
    h2_client_leave(client);
}

static const struct client_codec_ops codec = {
    .carry = h2_up_carry,
    .room = h2_room,
    .idle = h2_idle,
    .free = h2_free,
};

// ---- life -------------------------------------------------------------------------------------------------

static int begin(struct h2_client *client) {
    const struct conf_upstream *conf = client->conf;
    nghttp2_option *option;
    if (!h2_client_callbacks() || nghttp2_option_new(&option) != 0)
        return -ENOMEM;
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_no_closed_streams(option, 1);
    nghttp2_option_set_max_send_header_block_length(option, 4 << 20);
    nghttp2_option_set_max_continuations(option, conf->max_response_head / 4096 + 16);
    int rc = nghttp2_session_client_new3(&client->session.ng, h2_client_callbacks(), &client->session, option,
                                         &h2_memory);
    nghttp2_option_del(option);
    if (rc != 0)
        return -ENOMEM;
    const nghttp2_settings_entry settings[] = {
        { NGHTTP2_SETTINGS_ENABLE_PUSH, 0 },
        { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, (uint32_t)conf->http2_window },
        { NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, (uint32_t)conf->max_response_head },
    };
    if (nghttp2_submit_settings(client->session.ng, NGHTTP2_FLAG_NONE, settings,
                                sizeof settings / sizeof *settings) != 0 ||
        nghttp2_session_set_local_window_size(client->session.ng, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW) !=
            0) {
        nghttp2_session_del(client->session.ng);
        return -ENOMEM;
    }
    return 0;
}

struct client_codec *h2_client_new(struct conn *conn, const struct conf_upstream *conf, bool secure,
                                   const struct client_codec_callbacks *calls, void *owner) {
    struct h2_client *client = slab_get(&client_slab);
    if (!client) {
        conn_close(conn, CLOSE_memory);
        return NULL;
    }
    *client = (struct h2_client){
        .session = { .conn = conn, .taken = h2_client_taken },
        .public = { .many = true,
                    .ops = &codec,
                    .callbacks = calls,
                    .owner = owner,
                    .conn = conn,
                    .idle_ms = UINT64_MAX },
        .conf = conf,
        .state = SETTLING,
        .secure = secure,
        .heard_ms = clock_ms(),
        .settle_by = clock_ms() + conf->connect_timeout,
    };
    list_init(&client->public.link);
    list_init(&client->streams);
    list_init(&client->touched);
    list_init(&client->fed);
    list_init(&client->flusher.link);
    client->flusher.flush = flush;
    if (begin(client) < 0) {
        slab_put(&client_slab, client);
        conn_close(conn, CLOSE_memory);
        return NULL;
    }
    conn_adopt(conn, &handler, &client->public);
    set_timer(client);
    conn_read(conn);
    h2_client_send_later(client);
    return &client->public;
}
