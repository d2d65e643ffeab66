// SPDX-License-Identifier: BSD-2-Clause
// What the header says (announce.h): the addresses of the client's connection, what is known of its TLS, a name of it. All
// of it stays the same for as long as the client's connection lives. The bytes are net/proxy_header.c's.
#include "proxy/announce.h"

#include "net/proxy_header.h"
#include "tls/stream.h"

#include <errno.h>
#include <stdio.h>
#include <sys/random.h>

struct slice announce_nobody(const struct conf_upstream *conf) {
    static struct proxy_writer local;
    if (conf->proxy_protocol == PROXY_VERSION_NONE)
        return slice_make(NULL, 0);
    if (conf->proxy_protocol == PROXY_VERSION_1)
        return SLICE_LIT("PROXY UNKNOWN\r\n");
    proxy_v2_begin(&local, PROXY_LOCAL, NULL, NULL);
    if (proxy_v2_end(&local, false) < 0)
        local.len = 0;
    return slice_make((const char *)local.at, local.len);
}

// Of a name as RFC 2253 writes it; one with escapes in it is not said.
static struct slice common_name(struct slice subject) {
    for (struct slice rest = subject; rest.len > 0;) {
        const char *comma = memchr(rest.at, ',', rest.len);
        struct slice part = slice_make(rest.at, comma ? (size_t)(comma - rest.at) : rest.len);
        if (slice_starts(part, SLICE_LIT("CN=")))
            return memchr(part.at, '\\', part.len) ? slice_make(NULL, 0) : slice_from(part, 3);
        rest = slice_from(rest, part.len + 1);
    }
    return slice_make(NULL, 0);
}

static struct slice keep(struct exchange *x, struct conn *conn, enum tls_field field) {
    return arena_copy(&x->arena, tls_field(conn, field));
}

static void say_tls(struct proxy_writer *writer, struct exchange *x, struct conn *conn) {
    struct proxy_ssl ssl = { .client = PROXY_CLIENT_SSL, .verify = 1 };
    ssl.version = keep(x, conn, TLS_version);
    ssl.cipher = keep(x, conn, TLS_cipher);
    struct slice subject = keep(x, conn, TLS_client_subject);
    if (tls_field(conn, TLS_client_fingerprint).len > 0) {  // none is shown that is not good (verify_client)
        bool resumed = slice_eq(tls_field(conn, TLS_resumed), SLICE_LIT("yes"));
        ssl.client |= PROXY_CLIENT_CERT_SESS | (resumed ? 0 : PROXY_CLIENT_CERT_CONN);
        ssl.verify = 0;
        ssl.cn = common_name(subject);
    }
    proxy_v2_ssl(writer, &ssl);
}

// Of this process's life, then of the connection in it.
static void say_unique_id(struct proxy_writer *writer, const struct conn *conn) {
    static uint64_t seed[2];
    char id[64];
    if (!seed[0] && getrandom(seed, sizeof seed, GRND_NONBLOCK) != sizeof seed)
        seed[1] = conn->started_us;
    seed[0] |= 1;
    int len = snprintf(id, sizeof id, "%016llx%016llx-%llx", (unsigned long long)seed[0],
                       (unsigned long long)seed[1], (unsigned long long)conn->id);
    proxy_v2_tlv(writer, PROXY_TLV_unique_id, slice_make(id, (size_t)len));
}

static void say_text(struct proxy_writer *writer, uint8_t type, struct slice text) {
    if (text.len > 0)
        proxy_v2_tlv(writer, type, text);
}

static bool is_ip(const struct addr *addr) {
    return addr_family(addr) == AF_INET || addr_family(addr) == AF_INET6;
}

static int version_2(struct exchange *x, struct conn *conn, unsigned says, struct slice *ret_bytes) {
    static struct proxy_writer writer;  // large, and used up before this returns
    // HAProxy refuses what is neither TCP over IPv4 nor over IPv6, but for LOCAL; a unix client has no address worth saying.
    const struct addr *remote = conn_remote(conn), *local = conn_local(conn);
    proxy_v2_begin(&writer, is_ip(remote) && is_ip(local) ? PROXY_PROXY : PROXY_LOCAL, remote, local);
    if (says & PROXY_SAYS_ALPN)
        say_text(&writer, PROXY_TLV_alpn, tls_alpn(conn));
    if (says & PROXY_SAYS_AUTHORITY)
        say_text(&writer, PROXY_TLV_authority, tls_field(conn, TLS_server_name));
    if (says & PROXY_SAYS_UNIQUE_ID)
        say_unique_id(&writer, conn);
    if ((says & PROXY_SAYS_TLS) && conn->secure)
        say_tls(&writer, x, conn);
    struct slice own = x->proxy_tlvs, value;
    uint8_t type;
    while (proxy_tlv_next(&own, &type, &value))
        proxy_v2_tlv(&writer, type, value);
    int rc = proxy_v2_end(&writer, says & PROXY_SAYS_CHECKSUM);
    if (rc < 0)
        return rc;
    *ret_bytes = arena_copy(&x->arena, slice_make((const char *)writer.at, writer.len));
    return ret_bytes->at ? 0 : -ENOMEM;
}

int announce_client(struct exchange *x, const struct conf_upstream *conf, struct slice *ret_bytes) {
    struct conn *conn = x->down->conn ? x->down->conn(x) : NULL;
    if (conf->proxy_protocol == PROXY_VERSION_NONE || !conn) {
        *ret_bytes = announce_nobody(conf);
        return 0;
    }
    if (conf->proxy_protocol == PROXY_VERSION_2)
        return version_2(x, conn, conf->proxy_says, ret_bytes);
    char line[PROXY_V1_MAX + 1];
    size_t len = proxy_v1_write(line, conn_remote(conn), conn_local(conn));
    *ret_bytes = arena_copy(&x->arena, slice_make(line, len));
    return ret_bytes->at ? 0 : -ENOMEM;
}
