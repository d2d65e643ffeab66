// SPDX-License-Identifier: BSD-2-Clause
// Cookies that name servers (sticky.h).
#include "proxy/sticky.h"

#include "http/cookie.h"
#include "tls/digest.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { TOKEN_DIGITS = 16 };

uint64_t sticky_token(const struct upstream *upstream, struct slice addr) {
    const struct conf_sticky *sticky = upstream->conf->sticky;
    unsigned char key[DIGEST_MAX] = { 0 }, out[SIPHASH_SIZE];
    char text[ADDR_TEXT_MAX + 80];
    uint64_t token = 0;
    if (!sticky)
        return 0;
    if (sticky->key) {
        if (digest_of(DIGEST_sha256, slice_of(sticky->key), key) < 0)
            return 0;
    } else if (upstream->standings) {
        memcpy(key, standings_secret(upstream->standings), STANDINGS_SECRET);
    }
    // Of the same address in two upstreams they differ.
    struct slice name = slice_of(upstream->conf->name);
    if (name.len + 1 + addr.len > sizeof text)
        return 0;
    memcpy(text, name.at, name.len + 1);
    memcpy(text + name.len + 1, addr.at, addr.len);
    if (digest_siphash(key, slice_make(text, name.len + 1 + addr.len), out) < 0)
        return 0;
    memcpy(&token, out, sizeof token);
    return token ? token : 1;
}

// 0 when it is none.
static uint64_t parse(struct slice text) {
    uint64_t token = 0;
    if (text.len != TOKEN_DIGITS)
        return 0;
    for (size_t i = 0; i < TOKEN_DIGITS; i++) {
        char c = text.at[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
            return 0;
        token = token << 4 | (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    return token;
}

static struct server *of_token(const struct upstream *upstream, uint64_t token) {
    for (unsigned i = 0; i < upstream->server_count; i++)
        if (upstream->tokens[i] == token)
            return upstream->servers[i];
    return NULL;
}

int sticky_read(struct exchange *x) {
    const struct conf_sticky *sticky = x->upstream->conf->sticky;
    struct slice value;
    if (!sticky || x->sticky_read)
        return 0;
    x->sticky_read = true;
    if (!cookies_find(&x->req.headers, sticky->name, &value))
        return 0;
    // When there are several, which happens where paths or domains overlap, one that is ours may be behind.
    for (uint32_t i = 0; i < x->req.headers.count && x->sticky == 0; i++) {
        struct slice rest = x->req.headers.at[i].value, name;
        if (x->req.headers.at[i].id != HEADER_cookie || x->req.headers.at[i].name.len == 0)
            continue;
        while (x->sticky == 0 && cookie_next(&rest, &name, &value))
            if (slice_eq(name, sticky->name)) {
                uint64_t token = parse(value);
                x->sticky = token && of_token(x->upstream, token) ? token : 0;
            }
    }
    return cookies_remove(&x->req.headers, &x->arena, sticky->name);
}

struct server *sticky_find(struct upstream *upstream, const struct exchange *x) {
    struct server *server = of_token(upstream, x->sticky);
    if (!server || (x->tried & server->bit) || server_admin(server) == ADMIN_down || server_is_down(server))
        return NULL;
    return server;
}

// ---- the response -----------------------------------------------------------------------------------------

// "NAME=TOKEN; Path=...": NULL when memory is out.
static const char *cookie_of(struct exchange *x, const struct conf_sticky *sticky, uint64_t token) {
    char ttl[32] = "";
    if (sticky->ttl > 0)
        snprintf(ttl, sizeof ttl, "; Max-Age=%llu", (unsigned long long)(sticky->ttl / 1000));
    return arena_printf(&x->arena, "%s=%016llx%s%s%s%s%s%s%s%s%s", sticky->name.at, (unsigned long long)token,
                        sticky->path ? "; Path=" : "", sticky->path ? sticky->path : "",
                        sticky->domain ? "; Domain=" : "", sticky->domain ? sticky->domain : "", ttl,
                        sticky->secure ? "; Secure" : "", sticky->httponly ? "; HttpOnly" : "",
                        sticky->samesite ? "; SameSite=" : "", sticky->samesite ? sticky->samesite : "");
}

// A shared cache must not give one client's cookie to others.
static bool kept_private(const struct headers *headers) {
    static const struct slice words[] = { SLICE_LIT("private"), SLICE_LIT("no-store") };
    const struct header *header;
    uint32_t position = 0;
    while ((header = headers_next(headers, SLICE_LIT("cache-control"), &position))) {
        struct slice rest = header->value, one;
        while (slice_next_element(&rest, &one))
            for (unsigned i = 0; i < sizeof words / sizeof *words; i++)
                if (slice_ieq(one, words[i]))
                    return true;
    }
    return false;
}

int sticky_answered(struct exchange *x) {
    const struct conf_sticky *sticky = x->upstream->conf->sticky;
    uint64_t token = x->server->token;
    if (!sticky || token == 0 || token == x->sticky)
        return 0;
    const char *cookie = cookie_of(x, sticky, token);
    int rc = cookie ? headers_add(&x->res.headers, &x->arena, SLICE_LIT("set-cookie"), slice_of(cookie)) : -ENOMEM;
    if (rc == 0 && !kept_private(&x->res.headers))
        rc = headers_add(&x->res.headers, &x->arena, SLICE_LIT("cache-control"), SLICE_LIT("private"));
    return rc;
}
