// SPDX-License-Identifier: BSD-2-Clause
// The PROXY protocol for scripts: what the proxy in front of a connection has said of it (conn.proxy), and what of their
// own they say of it to servers (req:proxy_tlv).
#include "base/handle.h"
#include "http/exchange.h"
#include "net/conn.h"
#include "net/proxy_header.h"
#include "script/api_impl.h"

#include <stdio.h>
#include <string.h>

static int give(struct mg_text *ret_text, struct slice text) {
    if (!text.at)
        return MG_NONE;
    mg_text_set(ret_text, text);
    return MG_OK;
}

static int tls_of(const struct proxied *proxied, int type, struct mg_text *ret_text) {
    struct slice value;
    struct proxy_ssl ssl;
    if (!proxy_tlv_find(proxied->tlvs, PROXY_TLV_ssl, &value) || proxy_ssl_read(value, &ssl) < 0 ||
        !(ssl.client & PROXY_CLIENT_SSL))
        return MG_NONE;
    bool shown = ssl.client & (PROXY_CLIENT_CERT_CONN | PROXY_CLIENT_CERT_SESS);
    switch (type) {
    case 0:
        return give(ret_text, shown && ssl.verify == 0 ? SLICE_LIT("yes") : SLICE_LIT("no"));
#define X(name, type, doc) \
    case type: \
        return give(ret_text, ssl.name);
        PROXY_SSL_TLVS(X)
#undef X
    default:
        return MG_NONE;
    }
}

int mg_conn_proxy(double handle, int field, struct mg_text *ret_text) {
    static char text[ADDR_IP_MAX];
    struct conn *conn = handle_get(HANDLE_CONN, mg_handle(handle));
    if (!conn)
        return MG_STALE;
    const struct proxied *proxied = conn_proxied(conn);
    struct slice value;
    if (!proxied)
        return MG_NONE;
    if (field >= MG_PROXY_TLS)
        return tls_of(proxied, field - MG_PROXY_TLS, ret_text);
    if (field >= MG_PROXY_TLV)
        return proxy_tlv_find(proxied->tlvs, (uint8_t)(field - MG_PROXY_TLV), &value) ? give(ret_text, value) : MG_NONE;
    int len = 0;
    if (field == MG_PROXY_REMOTE_IP)
        len = (int)addr_print_ip(&proxied->proxy, text);
    else
        len = snprintf(text, sizeof text, "%u",
                       field == MG_PROXY_VERSION ? proxied->version : addr_port(&proxied->proxy));
    return give(ret_text, slice_make(text, (size_t)len));
}

int mg_request_proxy_tlv(double handle, int type, const char *at, size_t len) {
    enum { TLVS_MOST = 2048 };
    struct exchange *x = handle_get(HANDLE_EXCHANGE, mg_handle(handle));
    if (!x)
        return MG_STALE;
    if (type < PROXY_TLV_own_first || type > PROXY_TLV_own_last)
        return mg_error("a type of one's own is one of %d to %d (0xe0 to 0xef)", PROXY_TLV_own_first, PROXY_TLV_own_last);
    if (x->req_sent || x->head_sent)
        return mg_error("the request is on its way");
    struct slice before = x->proxy_tlvs;
    size_t all = before.len + 3 + len;
    if (len > TLVS_MOST || all > TLVS_MOST)
        return mg_error("all values of one request have %d bytes at most, with 3 more for each", TLVS_MOST);
    char *bytes = arena_alloc(&x->arena, all);
    if (!bytes)
        return mg_error("memory is out");
    memcpy(bytes, before.at ? before.at : "", before.len);
    bytes[before.len] = (char)type;
    bytes[before.len + 1] = (char)(len >> 8);
    bytes[before.len + 2] = (char)len;
    memcpy(bytes + before.len + 3, at, len);
    x->proxy_tlvs = slice_make(bytes, all);
    return MG_OK;
}
