// SPDX-License-Identifier: BSD-2-Clause
// What h2_session.h says: the part of HTTP/2 that does not depend on who asks and who answers.
#include "http/h2_session.h"

#include "base/slab.h"

#include <errno.h>
#include <stdlib.h>

// ---- memory -----------------------------------------------------------------------------------------------

// nghttp2 takes half a dozen pieces for each stream, and gives them back in another order: they are kept by size. In
// front of each piece stands which size it has.
enum { PIECE_HEAD = 16, PIECE_SIZES = 4, PIECES_SPARE = 512 };

static struct slab pieces[PIECE_SIZES] = {
    SLAB_INIT(64, PIECES_SPARE),
    SLAB_INIT(128, PIECES_SPARE),
    SLAB_INIT(256, PIECES_SPARE),
    SLAB_INIT(512, PIECES_SPARE),
};

static void *take(size_t size, void *user) {
    (void)user;
    unsigned which = 0;
    while (which < PIECE_SIZES && pieces[which].size - PIECE_HEAD < size)
        which++;
    if (size > SIZE_MAX - PIECE_HEAD)
        return NULL;
    char *piece = which < PIECE_SIZES ? slab_get(&pieces[which]) : malloc(PIECE_HEAD + size);
    if (!piece)
        return NULL;
    *(unsigned *)(void *)piece = which;
    return piece + PIECE_HEAD;
}

static void *take_zeroed(size_t count, size_t size, void *user) {
    size_t bytes;
    void *at = __builtin_mul_overflow(count, size, &bytes) ? NULL : take(bytes, user);
    return at ? memset(at, 0, bytes) : NULL;
}

static void give(void *at, void *user) {
    (void)user;
    if (!at)
        return;
    char *piece = (char *)at - PIECE_HEAD;
    unsigned which = *(unsigned *)(void *)piece;
    if (which < PIECE_SIZES)
        slab_put(&pieces[which], piece);
    else
        free(piece);
}

static void *resize(void *at, size_t size, void *user) {
    if (!at)
        return take(size, user);
    char *piece = (char *)at - PIECE_HEAD;
    unsigned which = *(unsigned *)(void *)piece;
    if (which == PIECE_SIZES) {
        piece = size > SIZE_MAX - PIECE_HEAD ? NULL : realloc(piece, PIECE_HEAD + size);
        return piece ? piece + PIECE_HEAD : NULL;
    }
    size_t room = pieces[which].size - PIECE_HEAD;
    if (size <= room)
        return at;
    void *larger = take(size, user);
    if (!larger)
        return NULL;
    memcpy(larger, at, room);
    give(at, user);
    return larger;
}

nghttp2_mem h2_memory = { .malloc = take, .calloc = take_zeroed, .realloc = resize, .free = give };

// ---- output -----------------------------------------------------------------------------------------------

static int send_trailers(struct h2_session *session, int32_t stream, const struct h2_body *body) {
    struct h2_fields fields = { .arena = body->arena };
    if (h2_fields_add_all(&fields, body->trailers) < 0)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    int rc = nghttp2_submit_trailer(session->ng, stream, fields.at, fields.count);
    return rc == 0 || rc == NGHTTP2_ERR_NOMEM ? rc : NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

static bool has_fields(const struct headers *headers) {
    for (uint32_t i = 0; headers && i < headers->count; i++)
        if (headers->at[i].name.len > 0)
            return true;
    return false;
}

// How much of the next frame there is; the bytes are moved in write_body().
static ssize_t measure_body(nghttp2_session *ng, int32_t stream, uint8_t *buf, size_t len, uint32_t *flags,
                            nghttp2_data_source *source, void *user) {
    (void)buf, (void)source;
    struct h2_session *session = user;
    struct h2_body *body = nghttp2_session_get_stream_user_data(ng, stream);
    if (!body)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    if (conn_waiting(session->conn) >= H2_WAITING_MAX)
        return NGHTTP2_ERR_PAUSE;
    if (len > body->queue.bytes)
        len = body->queue.bytes;
    bool last = body->ended && len == body->queue.bytes;
    if (len == 0 && !last) {
        body->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (last) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (has_fields(body->trailers)) {
            *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
            int rc = send_trailers(session, stream, body);
            if (rc != 0)
                return rc;
        }
    }
    return (ssize_t)len;
}

const nghttp2_data_provider h2_body_provider = { .read_callback = measure_body };

static int write_body(nghttp2_session *ng, nghttp2_frame *frame, const uint8_t *head, size_t len,
                      nghttp2_data_source *source, void *user) {
    enum { FRAME_HEAD = 9 };
    (void)source;
    struct h2_session *session = user;
    struct queue *out = &session->conn->out;
    struct h2_body *body = nghttp2_session_get_stream_user_data(ng, frame->hd.stream_id);
    if (!body)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    // Asked again after memory ran out in the middle: a part of the frame is gone.
    if (len > body->queue.bytes)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    if (queue_copy(out, head, FRAME_HEAD) < 0 || queue_move_part(out, &body->queue, len) < 0)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    session->taken(session, body);
    return 0;
}

void h2_session_set_callbacks(nghttp2_session_callbacks *callbacks) {
    nghttp2_session_callbacks_set_send_data_callback(callbacks, write_body);
}

int h2_session_send(struct h2_session *session) {
    struct conn *conn = session->conn;
    while (conn_waiting(conn) < H2_WAITING_MAX) {
        const uint8_t *at;
        ssize_t n = nghttp2_session_mem_send(session->ng, &at);
        if (n < 0)
            return n == NGHTTP2_ERR_NOMEM || n == NGHTTP2_ERR_CALLBACK_FAILURE ? -ENOMEM : -EPROTO;
        if (n == 0)
            break;
        if (queue_copy(&conn->out, at, (size_t)n) < 0)
            return -ENOMEM;
    }
    if (conn->out.bytes > 0)
        conn_flush(conn);
    return 0;
}

void h2_session_abandon(nghttp2_session *ng) {
    enum { MOST = 1024 };
    static nghttp2_session *abandoned[MOST] __attribute__((used));  // for who looks for leaks
    static unsigned count;
    if (count < MOST)
        abandoned[count++] = ng;
}

void h2_body_more(struct h2_session *session, int32_t stream, struct h2_body *body) {
    if (!body->deferred)
        return;
    body->deferred = false;
    nghttp2_session_resume_data(session->ng, stream);
}

// ---- heads ------------------------------------------------------------------------------------------------

// What would tell one client's secrets to another by the size of what is sent must not be kept in the table
// that all streams of a connection share (RFC 7541, 7.1).
static bool is_secret(enum header_id id) {
    return id == HEADER_authorization || id == HEADER_cookie || id == HEADER_set_cookie ||
        id == HEADER_proxy_authorization;
}

static int add(struct h2_fields *fields, struct slice name, struct slice value, unsigned flags) {
    if (fields->count == fields->room) {
        size_t room = fields->room ? fields->room * 2 : 24;
        nghttp2_nv *at = arena_alloc(fields->arena, room * sizeof *at);
        if (!at)
            return -ENOMEM;
        if (fields->count > 0)
            memcpy(at, fields->at, fields->count * sizeof *at);
        fields->at = at;
        fields->room = room;
    }
    fields->at[fields->count++] = (nghttp2_nv){
        .name = (uint8_t *)(uintptr_t)name.at,
        .namelen = name.len,
        .value = (uint8_t *)(uintptr_t)value.at,
        .valuelen = value.len,
        .flags = (uint8_t)flags,
    };
    return 0;
}

int h2_fields_add(struct h2_fields *fields, struct slice name, struct slice value) {
    return add(fields, name, value, NGHTTP2_NV_FLAG_NO_COPY_NAME);
}

int h2_fields_add_number(struct h2_fields *fields, struct slice name, uint64_t number) {
    struct slice text = arena_number(fields->arena, number);
    return text.at ? add(fields, name, text, NGHTTP2_NV_FLAG_NO_COPY_NAME) : -ENOMEM;
}

static bool is_capital(char c) {
    return c >= 'A' && c <= 'Z';
}

static struct slice lower(struct arena *arena, struct slice name) {
    size_t i = 0;
    while (i < name.len && !is_capital(name.at[i]))
        i++;
    if (i == name.len)
        return name;
    char *to = arena_alloc(arena, name.len);
    for (i = 0; to && i < name.len; i++)
        to[i] = (char)(is_capital(name.at[i]) ? name.at[i] | 0x20 : name.at[i]);
    return slice_make(to, name.len);
}

static bool stays_behind(const struct header *header) {
    switch (header->id) {
    case HEADER_host:
    case HEADER_connection:
    case HEADER_keep_alive:
    case HEADER_proxy_connection:
    case HEADER_te:
    case HEADER_transfer_encoding:
    case HEADER_content_length:
    case HEADER_upgrade:
        return true;
    default:
        return slice_ieq(header->name, SLICE_LIT("http2-settings"));
    }
}

int h2_fields_add_all(struct h2_fields *fields, const struct headers *headers) {
    for (uint32_t i = 0; i < headers->count; i++) {
        const struct header *header = &headers->at[i];
        if (header->name.len == 0 || stays_behind(header))
            continue;
        bool known = header->id != HEADER_OTHER;
        struct slice name = known ? header_name_of(header->id) : lower(fields->arena, header->name);
        unsigned flags = known ? NGHTTP2_NV_FLAG_NO_COPY_NAME : NGHTTP2_NV_FLAG_NONE;
        if (is_secret(header->id))
            flags |= NGHTTP2_NV_FLAG_NO_INDEX;
        if (!name.at || add(fields, name, header->value, flags) < 0)
            return -ENOMEM;
    }
    return 0;
}
