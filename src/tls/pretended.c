// SPDX-License-Identifier: BSD-2-Clause
// The facts of pretended.h. As a layer it is never called: the conn carries nothing.
#include "tls/pretended.h"

#include "net/conn_layer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct tls_pretended {
    struct conn_layer layer;
    bool greeting;
    char *facts[TLS_FIELD_COUNT];  // NULL: not known
    char *choice;
    char *diversion;
};

static const struct conn_layer_ops pretended_ops = { 0 };

static const char *const names[] = {
#define X(name, doc) #name,
    TLS_FIELDS(X)
#undef X
};

struct tls_pretended *tls_pretended_new(void) {
    return calloc(1, sizeof(struct tls_pretended));
}

void tls_pretended_free(struct tls_pretended *tls) {
    if (!tls)
        return;
    for (int i = 0; i < TLS_FIELD_COUNT; i++)
        free(tls->facts[i]);
    free(tls->choice);
    free(tls->diversion);
    free(tls);
}

static int put(char **to, struct slice text) {
    char *copy = strndup(text.at ? text.at : "", text.len);
    if (!copy)
        return -ENOMEM;
    free(*to);
    *to = copy;
    return 0;
}

int tls_pretended_tell(struct tls_pretended *tls, struct slice name, struct slice text) {
    for (int i = 0; i < TLS_FIELD_COUNT; i++)
        if (slice_eq(name, slice_of(names[i])))
            return put(&tls->facts[i], text);
    return -ENOENT;
}

void tls_pretended_use(struct conn *conn, struct tls_pretended *tls, bool greeting) {
    tls->layer.ops = &pretended_ops;
    tls->greeting = greeting;
    conn->layer = &tls->layer;
    conn->secure = true;
}

struct slice tls_pretended_choice(const struct tls_pretended *tls) {
    return slice_of(tls->choice ? tls->choice : "");
}

const char *tls_pretended_diversion(const struct tls_pretended *tls) {
    return tls->diversion;
}

struct tls_pretended *tls_pretended_of(const struct conn *conn) {
    return conn->layer && conn->layer->ops == &pretended_ops
        ? container_of(conn->layer, struct tls_pretended, layer)
        : NULL;
}

// As tls_field() has it of a real one.
struct slice tls_pretended_field(const struct tls_pretended *tls, enum tls_field field) {
    bool early = field == TLS_server_name || field == TLS_fingerprint;
    bool offered = field == TLS_offered_alpn || field == TLS_offered_versions;
    if (!tls->facts[field] || (tls->greeting ? !early && !offered : offered))
        return slice_make(NULL, 0);
    return slice_of(tls->facts[field]);
}

int tls_pretended_choose(struct tls_pretended *tls, struct slice name) {
    return put(&tls->choice, name);
}

int tls_pretended_divert(struct tls_pretended *tls, struct slice to) {
    return put(&tls->diversion, to);
}
