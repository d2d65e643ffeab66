// SPDX-License-Identifier: BSD-2-Clause
// Reading a PROXY header from a conn (introduction.h). What has come is looked at while it stays in the kernel, and
// taken from there when it turns out to be a part of the header, or all of it: what comes behind is never ours.
#include "proxy/introduction.h"

#include "base/slab.h"
#include "net/proxy_header.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct introduction {
    struct conn *conn;
    void (*told)(void *owner, enum close_reason reason, const char *why);
    void *owner;
    char *bytes;  // the part of the header that has come; NULL: nothing yet
    size_t have;
};

static struct slab introduction_slab = SLAB_INIT(sizeof(struct introduction), 64);

void introduction_free(struct introduction *introduction) {
    timer_stop(&introduction->conn->timer);
    free(introduction->bytes);
    slab_put(&introduction_slab, introduction);
}

static void tell(struct introduction *introduction, enum close_reason reason, const char *why) {
    void (*told)(void *owner, enum close_reason reason, const char *why) = introduction->told;
    void *owner = introduction->owner;
    introduction_free(introduction);
    told(owner, reason, why);
}

static bool is_ip(const struct addr *addr) {
    return addr_family(addr) == AF_INET || addr_family(addr) == AF_INET6;
}

// Of a header that is whole. -ENOMEM.
static int take(struct conn *conn, const struct proxy_header *header) {
    struct proxied *proxied = calloc(1, sizeof *proxied + header->tlvs.len);
    if (!proxied)
        return -ENOMEM;
    proxied->version = header->version;
    proxied->command = header->command;
    if (header->command == PROXY_PROXY && is_ip(&header->source) && is_ip(&header->destination)) {
        proxied->source = header->source;
        proxied->destination = header->destination;
    }
    if (header->tlvs.len > 0)
        memcpy(proxied->bytes, header->tlvs.at, header->tlvs.len);
    proxied->tlvs = slice_make(proxied->bytes, header->tlvs.len);
    int rc = conn_set_proxied(conn, proxied);
    if (rc < 0)
        free(proxied);
    return rc;
}

// The header goes on behind what has come, all of which is a part of it.
static int keep(struct introduction *introduction, const char *at, size_t more) {
    char *bytes = realloc(introduction->bytes, introduction->have + more);
    if (!bytes)
        return -ENOMEM;
    introduction->bytes = bytes;
    memcpy(bytes + introduction->have, at, more);
    introduction->have += more;
    return 0;
}

static void readable(struct conn *conn) {
    static char all[PROXY_HEADER_MAX];  // used up before this returns
    struct introduction *introduction = conn->owner;
    size_t have = introduction->have, len;
    struct proxy_header header;
    struct error error;
    memcpy(all, introduction->bytes ? introduction->bytes : "", have);
    ssize_t more = conn_receive(conn, all + have, sizeof all - have, true);
    if (more == -EAGAIN || more == -EINTR) {
        conn_await(conn);
        return;
    }
    if (more <= 0) {
        tell(introduction, more < 0 ? CLOSE_client_reset : CLOSE_client_closed, NULL);
        return;
    }
    int rc = proxy_header_read(slice_make(all, have + (size_t)more), &header, &len, &error);
    if (rc < 0 && rc != -EAGAIN) {
        tell(introduction, CLOSE_proxy_header, error.text);
        return;
    }
    size_t ours = rc == 0 ? len - have : (size_t)more;
    if (conn_receive(conn, all + have, ours, false) != (ssize_t)ours)
        tell(introduction, CLOSE_client_reset, NULL);
    else if (rc == 0 ? take(conn, &header) < 0 : keep(introduction, all + have, ours) < 0)
        tell(introduction, CLOSE_memory, NULL);
    else if (rc == 0)
        tell(introduction, CLOSE_none, NULL);
    else
        conn_await(conn);
}

static void timed_out(struct conn *conn) {
    tell(conn->owner, CLOSE_header_timeout, "no PROXY header within header_timeout");
}

static const struct conn_handler handler = { .readable = readable, .timeout = timed_out };

struct introduction *introduction_new(struct conn *conn, uint64_t timeout_ms,
                                      void (*told)(void *owner, enum close_reason reason, const char *why),
                                      void *owner) {
    struct introduction *introduction = slab_get(&introduction_slab);
    if (!introduction)
        return NULL;
    *introduction = (struct introduction){ .conn = conn, .told = told, .owner = owner };
    conn_adopt(conn, &handler, introduction);
    timer_start(&conn->timer, timeout_ms);
    conn_await(conn);
    return introduction;
}
