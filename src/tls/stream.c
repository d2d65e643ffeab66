// SPDX-License-Identifier: BSD-2-Clause
// The TLS layer of a conn (stream.h). OpenSSL reads from the span that just came and writes to the layer's
// wire by a BIO of ours, so that nothing is buffered twice; plain bytes are read into one block that all
// conns share in turn. What certificates are used is said by server.c and client.c.
#include "tls/stream.h"

#include "base/log.h"
#include "base/slab.h"
#include "net/conn_layer.h"
#include "tls/peer.h"
#include "tls/pretended.h"
#include "tls/stream_impl.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    RECORD = 16384,       // plain bytes of a full record
    PLAIN = BLOCK_LARGE,  // of the block that is read into
    ROOM = RECORD,        // with less than a record left a new one is taken
};

static struct slab stream_slab = SLAB_INIT(sizeof(struct tls_stream), 128);

static bool encrypts(const struct conn *conn);

struct tls_stream *tls_stream_of(const struct conn *conn) {
    return encrypts(conn) ? container_of(conn->layer, struct tls_stream, layer) : NULL;
}

// ---- between OpenSSL and the wire -------------------------------------------------------------------------

static int bio_read(BIO *bio, char *to, size_t room, size_t *ret_len) {
    struct conn *conn = BIO_get_data(bio);
    struct tls_stream *stream = tls_stream_of(conn);
    BIO_clear_retry_flags(bio);
    while (stream->input.len == 0) {
        if (stream->input.block)
            block_unref(stream->input.block);
        stream->input = (struct span){ 0 };
        if (!queue_take(&stream->behind, &stream->input)) {
            BIO_set_retry_read(bio);
            return 0;
        }
    }
    size_t len = stream->input.len < room ? stream->input.len : room;
    memcpy(to, stream->input.at, len);
    if (stream->hello_state != HELLO_ANSWERED && stream->callbacks->hello &&
        queue_copy(&stream->read, to, len) < 0)
        return 0;
    stream->input.at += len;
    stream->input.len -= (uint32_t)len;
    *ret_len = len;
    return 1;
}

static int bio_write(BIO *bio, const char *at, size_t len, size_t *ret_len) {
    struct conn *conn = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (queue_copy(&conn->layer->wire, at, len) < 0)
        return 0;
    conn_flush(conn);
    *ret_len = len;
    return 1;
}

static long bio_control(BIO *bio, int command, long number, void *at) {
    (void)bio, (void)number, (void)at;
    return command == BIO_CTRL_FLUSH;
}

static int bio_create(BIO *bio) {
    BIO_set_init(bio, 1);
    return 1;
}

static BIO *bio_new(struct conn *conn) {
    static BIO_METHOD *method;
    if (!method) {
        method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "conn");
        if (!method)
            return NULL;
        BIO_meth_set_read_ex(method, bio_read);
        BIO_meth_set_write_ex(method, bio_write);
        BIO_meth_set_ctrl(method, bio_control);
        BIO_meth_set_create(method, bio_create);
    }
    BIO *bio = BIO_new(method);
    if (bio)
        BIO_set_data(bio, conn);
    return bio;
}

// ---- what went wrong --------------------------------------------------------------------------------------

// The text for the log, from the oldest error of OpenSSL's queue, which is what began it.
static const char *why(const struct tls_stream *stream, const char *otherwise) {
    static char text[256];
    unsigned long code = ERR_peek_error();
    if (code == 0)
        return otherwise;
    const char *reason = ERR_reason_error_string(code);
    int lib = ERR_GET_LIB(code), number = ERR_GET_REASON(code);
    long verify = SSL_get_verify_result(stream->ssl);
    if (lib == ERR_LIB_SSL && number == SSL_R_CERTIFICATE_VERIFY_FAILED && verify != X509_V_OK)
        snprintf(text, sizeof text, "the peer's certificate is refused: %s",
                 X509_verify_cert_error_string(verify));
    else if (lib == ERR_LIB_SSL && number >= SSL_AD_REASON_OFFSET)
        snprintf(text, sizeof text, "the peer sent an alert: %s",
                 SSL_alert_desc_string_long(number - SSL_AD_REASON_OFFSET));
    else
        snprintf(text, sizeof text, "%s", reason ? reason : "unknown error");
    ERR_clear_error();
    return text;
}

static void fail_handshake(struct conn *conn, struct tls_stream *stream, int error, const char *text) {
    stream->state = TLS_FAILED;
    stream->callbacks->done(conn, stream->owner, error, text);
}

// ---- the client's hello -----------------------------------------------------------------------------------

static struct slice extension(SSL *ssl, unsigned type) {
    const unsigned char *at = NULL;
    size_t len = 0;
    if (!SSL_client_hello_get0_ext(ssl, type, &at, &len))
        return (struct slice){ 0 };
    return slice_make(at ? (const char *)at : "", len);
}

static void take_hello(SSL *ssl, struct tls_hello *hello) {
    const unsigned char *at = NULL;
    size_t len = SSL_client_hello_get0_ciphers(ssl, &at), count = 0;
    int *types = NULL;
    *hello = (struct tls_hello){ .version = SSL_client_hello_get0_legacy_version(ssl),
                                 .ciphers = slice_make((const char *)at, len),
                                 .server_name = extension(ssl, TLSEXT_TYPE_server_name),
                                 .alpn = extension(ssl, TLSEXT_TYPE_application_layer_protocol_negotiation),
                                 .versions = extension(ssl, TLSEXT_TYPE_supported_versions),
                                 .algorithms = extension(ssl, TLSEXT_TYPE_signature_algorithms) };
    if (SSL_client_hello_get1_extensions_present(ssl, &types, &count))
        for (size_t i = 0; i < count && i < HELLO_EXTENSIONS; i++)
            hello->extensions[hello->extension_count++] = (uint16_t)types[i];
    OPENSSL_free(types);
}

static void ask(struct conn *conn, struct tls_stream *stream) {
    stream->hello_state = HELLO_ASKED;
    enum tls_answer answer =
        stream->callbacks->hello ? stream->callbacks->hello(conn, stream->owner) : TLS_GO_ON;
    if (answer == TLS_WAIT) {
        conn_pause(conn);
        return;
    }
    stream->answer = answer;
    stream->hello_state = HELLO_ANSWERED;
}

int tls_stream_hello(struct ssl_st *ssl, int *alert, void *arg) {
    struct conn *conn = SSL_get_app_data(ssl);
    struct tls_stream *stream = tls_stream_of(conn);
    (void)arg;
    if (stream->hello_state == HELLO_AWAITED) {
        struct tls_hello hello;
        take_hello(ssl, &hello);
        if (hello_fingerprint(&hello, stream->fingerprint) < 0)
            *stream->fingerprint = 0;
        ask(conn, stream);
    }
    if (stream->hello_state == HELLO_ASKED)
        return SSL_CLIENT_HELLO_RETRY;
    if (stream->answer == TLS_GO_ON) {
        queue_release(&stream->read);
        return SSL_CLIENT_HELLO_SUCCESS;
    }
    *alert = SSL_AD_ACCESS_DENIED;
    return SSL_CLIENT_HELLO_ERROR;
}

void tls_answered(struct conn *conn, enum tls_answer answer) {
    struct tls_stream *stream = tls_stream_of(conn);
    if (!stream || stream->hello_state != HELLO_ASKED)
        return;
    stream->answer = answer;
    stream->hello_state = HELLO_ANSWERED;
    if (conn->state != CONN_OPEN)
        return;
    conn_read(conn);
    tls_stream_go_on(conn, stream);
}

int tls_choose(struct conn *conn, struct slice name) {
    struct tls_stream *stream = tls_stream_of(conn);
    if (tls_pretended_of(conn))
        return tls_pretended_choose(tls_pretended_of(conn), name);
    void *site = stream ? tls_server_site(stream->held, name) : NULL;
    if (!site)
        return -ENOENT;
    stream->chosen = site;
    return 0;
}

int tls_set_diversion(struct conn *conn, struct slice to) {
    struct tls_stream *stream = tls_stream_of(conn);
    if (tls_pretended_of(conn))
        return tls_pretended_divert(tls_pretended_of(conn), to);
    if (!stream)
        return -ENOENT;
    char *text = malloc(to.len + 1);
    if (!text)
        return -ENOMEM;
    memcpy(text, to.at, to.len);
    text[to.len] = 0;
    free(stream->diversion);
    stream->diversion = text;
    return 0;
}

bool tls_has_diversion(const struct conn *conn) {
    const struct tls_stream *stream = tls_stream_of(conn);
    return stream && stream->diversion;
}

static void freed(struct conn *conn);

// The conn is its owner's again, with all that was read of it.
static void divert(struct conn *conn, struct tls_stream *stream) {
    const struct tls_callbacks *callbacks = stream->callbacks;
    void *owner = stream->owner;
    struct queue read = stream->read;
    queue_init(&stream->read);
    bool whole = stream->input.len == 0 || queue_put_whole(&read, stream->input) == 0;
    if (stream->input.len > 0)
        stream->input = (struct span){ 0 };
    queue_move(&read, &stream->behind);
    ERR_clear_error();
    char *to = stream->diversion;
    stream->diversion = NULL;
    queue_release(&conn->layer->wire);
    freed(conn);
    conn->layer = NULL;
    if (!whole)
        queue_release(&read);
    callbacks->diverted(conn, owner, &read, to);
    free(to);
}

// ---- receiving --------------------------------------------------------------------------------------------

// Where all conns read to. It is new whenever somebody still holds a part and less than a record is free.
static struct block *plain_block(void) {
    static struct block *plain;
    if (plain && plain->refs == 1)
        plain->used = 0;
    if (plain && plain->size - plain->used < ROOM) {
        block_unref(plain);
        plain = NULL;
    }
    if (!plain) {
        plain = block_new(PLAIN);
        if (plain)
            plain->scarce = true;  // small parts that have to wait must not keep all of it
    }
    return plain;
}

// The peer may have the conn's handler from now on.
static void hand_over(struct conn *conn, struct tls_stream *stream, enum tls_state state) {
    stream->state = state;
    conn->secure = true;
    stream->callbacks->done(conn, stream->owner, 0, NULL);
}

static void lose_handshake(struct conn *conn, struct tls_stream *stream) {
    const char *text = why(stream, "the handshake failed");
    if (stream->state == TLS_HANDSHAKE) {
        fail_handshake(conn, stream, -EPROTO, text);
        return;
    }
    log_info("conn %llu: TLS: %s", (unsigned long long)conn->id, text);
    stream->state = TLS_FAILED;
    conn_deliver_end(conn, -EPROTO);
}

static bool waits_for_bytes(int error) {
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ||
        error == SSL_ERROR_WANT_CLIENT_HELLO_CB;
}

// What ends a handshake that does not go on by itself. True when the stream is gone.
static bool end_handshake(struct conn *conn, struct tls_stream *stream) {
    bool gone = stream->hello_state == HELLO_ANSWERED && stream->answer == TLS_DIVERT && stream->diversion;
    if (gone)
        divert(conn, stream);
    else
        lose_handshake(conn, stream);
    return gone;
}

static void deliver_early(struct conn *conn, struct tls_stream *stream, struct span span) {
    if (!stream->held_back)
        conn_deliver(conn, span);
    else if (queue_put_whole(&stream->plain, span) < 0)
        conn_deliver_end(conn, -ENOMEM);
}

// Reads what the client sends before it has heard anything. True when the handshake can go on.
static bool read_early(struct conn *conn, struct tls_stream *stream) {
    while (stream->early && conn->state == CONN_OPEN && !stream->layer.ended) {
        struct block *block = plain_block();
        size_t len = 0;
        if (!block) {
            lose_handshake(conn, stream);
            return false;
        }
        ERR_clear_error();
        char *at = block->base + block->used;
        int rc = SSL_read_early_data(stream->ssl, at, block->size - block->used, &len);
        if (rc == SSL_READ_EARLY_DATA_ERROR) {
            if (!waits_for_bytes(SSL_get_error(stream->ssl, 0)))
                (void)end_handshake(conn, stream);
            return false;
        }
        stream->early = rc == SSL_READ_EARLY_DATA_SUCCESS;
        if (len == 0)
            continue;
        block->used += (uint32_t)len;
        block_ref(block);
        conn->early = true;
        if (stream->state == TLS_HANDSHAKE)
            hand_over(conn, stream, TLS_EARLY);
        deliver_early(conn, stream, (struct span){ block, at, (uint32_t)len });
    }
    return !stream->early && conn->state == CONN_OPEN && !stream->layer.ended;
}

static void handshake(struct conn *conn, struct tls_stream *stream) {
    if (stream->early && !read_early(conn, stream))
        return;
    ERR_clear_error();
    int rc = SSL_do_handshake(stream->ssl);
    if (rc != 1) {
        if (!waits_for_bytes(SSL_get_error(stream->ssl, rc)))
            (void)end_handshake(conn, stream);
        return;
    }
    // In the handshake they are used again and again.
    SSL_set_mode(stream->ssl, SSL_MODE_RELEASE_BUFFERS);
    (void)SSL_free_buffers(stream->ssl);
    conn->early = false;
    if (stream->state == TLS_EARLY)
        stream->state = TLS_OPEN;
    else
        hand_over(conn, stream, TLS_OPEN);
}

// Reads as many records as have come and fit; *ret_error as SSL_get_error() has it for the one that did not.
static struct span read_records(struct tls_stream *stream, struct block *block, int *ret_error) {
    struct span span = { block, block->base + block->used, 0 };
    *ret_error = SSL_ERROR_NONE;
    while (block->size - block->used >= ROOM) {
        size_t len = 0;
        int rc = SSL_read_ex(stream->ssl, block->base + block->used, block->size - block->used, &len);
        if (rc != 1) {
            *ret_error = SSL_get_error(stream->ssl, rc);
            break;
        }
        span.len += (uint32_t)len;
        block->used += (uint32_t)len;
    }
    return span;
}

static void read_all(struct conn *conn, struct tls_stream *stream) {
    int error = SSL_ERROR_NONE;
    while (error == SSL_ERROR_NONE && conn->state == CONN_OPEN && !stream->layer.ended) {
        struct block *block = plain_block();
        if (!block) {
            conn_deliver_end(conn, -ENOMEM);
            return;
        }
        ERR_clear_error();
        struct span span = read_records(stream, block, &error);
        bool bad = error == SSL_ERROR_SSL || error == SSL_ERROR_SYSCALL;
        const char *text = bad ? why(stream, "unknown error") : NULL;
        if (span.len > 0) {
            block_ref(block);
            conn_deliver(conn, span);
        }
        if (error == SSL_ERROR_ZERO_RETURN) {
            conn_deliver_end(conn, 0);
        } else if (text) {
            log_info("conn %llu: TLS: %s", (unsigned long long)conn->id, text);
            stream->state = TLS_FAILED;
            conn_deliver_end(conn, -EPROTO);
        }
    }
}

static void forget_input(struct tls_stream *stream) {
    if (stream->input.block)
        block_unref(stream->input.block);
    stream->input = (struct span){ 0 };
    queue_release(&stream->behind);
}

// Goes on with what has come.
void tls_stream_go_on(struct conn *conn, struct tls_stream *stream) {
    if (stream->state == TLS_HANDSHAKE || stream->state == TLS_EARLY)
        handshake(conn, stream);
    if (conn->layer != &stream->layer)
        return;  // it was diverted
    if (stream->state == TLS_OPEN && conn->state == CONN_OPEN && !stream->held_back)
        read_all(conn, stream);
    bool empty = stream->input.len == 0 && stream->behind.bytes == 0;
    if (empty || stream->state == TLS_FAILED || conn->state != CONN_OPEN)
        forget_input(stream);
}

void tls_hold(struct conn *conn) {
    tls_stream_of(conn)->held_back = true;
    conn_pause(conn);
}

void tls_go_on(struct conn *conn) {
    struct tls_stream *stream = tls_stream_of(conn);
    struct span span;
    stream->held_back = false;
    while (queue_take(&stream->plain, &span))
        conn_deliver(conn, span);
    if (conn->state == CONN_OPEN)
        tls_stream_go_on(conn, stream);
}

static void received(struct conn *conn, struct span span) {
    struct tls_stream *stream = tls_stream_of(conn);
    if (stream->input.len == 0 && stream->behind.bytes == 0) {
        if (stream->input.block)
            block_unref(stream->input.block);
        stream->input = span;
    } else if (queue_put_whole(&stream->behind, span) < 0) {
        conn_deliver_end(conn, -ENOMEM);
        return;
    }
    tls_stream_go_on(conn, stream);
}

static void ended(struct conn *conn, int error) {
    struct tls_stream *stream = tls_stream_of(conn);
    if (stream->state == TLS_HANDSHAKE)
        fail_handshake(conn, stream, error ? error : -ECONNRESET,
                       error ? "the connection broke" : "the peer closed the connection");
    else if (stream->state != TLS_FAILED)
        conn_deliver_end(conn, error ? error : -ECONNRESET);
}

static void broken(struct conn *conn, int error) {
    struct tls_stream *stream = tls_stream_of(conn);
    if (stream->state == TLS_HANDSHAKE)
        fail_handshake(conn, stream, error, "the connection broke");
    else if (conn->handler->broken)
        conn_deliver_broken(conn, error);
}

// ---- sending ----------------------------------------------------------------------------------------------

static int write_plain(struct tls_stream *stream, const char *at, size_t len) {
    size_t written;
    ERR_clear_error();
    int rc = stream->state == TLS_EARLY ? SSL_write_early_data(stream->ssl, at, len, &written)
                                        : SSL_write_ex(stream->ssl, at, len, &written);
    if (rc == 1)
        return 0;
    ERR_clear_error();
    return -EIO;
}

// A piece of at least a record goes as it is, in full records; what is less is gathered, so that a small
// response is one record and bulk has only full ones.
static int seal(struct conn *conn, size_t most) {
    static char gathered[RECORD];
    struct tls_stream *stream = tls_stream_of(conn);
    size_t begun = conn->out.bytes;
    int rc = 0;
    if (stream->state == TLS_FAILED)
        return -EPROTO;
    bool open = stream->state == TLS_OPEN || stream->state == TLS_EARLY;
    while (open && rc == 0 && conn->out.bytes > 0 && begun - conn->out.bytes < most) {
        struct slice front;
        if (!queue_peek(&conn->out, &front))
            break;
        size_t len = front.len - front.len % RECORD, left = most - (begun - conn->out.bytes);
        if (len > left)
            len = left < RECORD ? left : left - left % RECORD;
        if (len > 0) {
            rc = write_plain(stream, front.at, len);
            queue_drop(&conn->out, len);
            stream->layer.sealed += len;
            continue;
        }
        while (len < RECORD && len < left && queue_peek(&conn->out, &front)) {
            size_t part = front.len < RECORD - len ? front.len : RECORD - len;
            memcpy(gathered + len, front.at, part);
            queue_drop(&conn->out, part);
            len += part;
        }
        rc = write_plain(stream, gathered, len);
        stream->layer.sealed += len;
    }
    return rc;
}

static void shut_down(struct conn *conn) {
    struct tls_stream *stream = tls_stream_of(conn);
    if (stream->state != TLS_OPEN)
        return;
    ERR_clear_error();
    (void)SSL_shutdown(stream->ssl);
    ERR_clear_error();
}

// ---- life -------------------------------------------------------------------------------------------------

static void freed(struct conn *conn) {
    struct tls_stream *stream = tls_stream_of(conn);
    forget_input(stream);
    queue_release(&stream->read);
    queue_release(&stream->plain);
    free(stream->diversion);
    // A session that did not end with close_notify may be resumed all the same: that is what everybody does.
    SSL_set_shutdown(stream->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(stream->ssl);
    if (stream->drop)
        stream->drop(stream->held);
    slab_put(&stream_slab, stream);
}

static const struct conn_layer_ops tls_ops = {
    .received = received,
    .ended = ended,
    .broken = broken,
    .seal = seal,
    .shutdown = shut_down,
    .freed = freed,
};

static bool encrypts(const struct conn *conn) {
    return conn->layer && conn->layer->ops == &tls_ops;
}

bool tls_on(const struct conn *conn) {
    return encrypts(conn) || tls_pretended_of(conn);
}

int tls_stream_begin(struct conn *conn, struct ssl_st *ssl, const struct tls_callbacks *callbacks,
                     void *owner, void *held, void (*drop)(void *held)) {
    struct tls_stream *stream = slab_get(&stream_slab);
    BIO *bio = stream && SSL_set_app_data(ssl, conn) ? bio_new(conn) : NULL;
    if (!bio) {
        slab_put(&stream_slab, stream);
        SSL_free(ssl);
        if (drop)
            drop(held);
        return -ENOMEM;
    }
    *stream = (struct tls_stream){
        .ssl = ssl, .callbacks = callbacks, .owner = owner, .held = held, .drop = drop, .state = TLS_HANDSHAKE
    };
    queue_init(&stream->behind);
    queue_init(&stream->read);
    queue_init(&stream->plain);
    SSL_set_bio(ssl, bio, bio);
    conn_set_layer(conn, &stream->layer, &tls_ops);
    conn_read(conn);
    if (SSL_is_server(ssl))
        return 0;
    ERR_clear_error();
    int rc = SSL_do_handshake(ssl);  // writes the hello
    return SSL_get_error(ssl, rc) == SSL_ERROR_WANT_READ ? 0 : -EPROTO;
}

// ---- what is known ----------------------------------------------------------------------------------------

static struct slice text_of(const char *text) {
    return text ? slice_of(text) : (struct slice){ 0 };
}

// What is known of the hello while hello() decides.
static struct slice hello_field(const struct tls_stream *stream, enum tls_field field) {
    static char text[1024];
    struct tls_hello hello;
    take_hello(stream->ssl, &hello);
    switch (field) {
    case TLS_server_name:
        return hello_server_name(&hello);
    case TLS_fingerprint:
        return text_of(stream->fingerprint);
    case TLS_offered_alpn:
        return slice_make(text, hello_alpn(&hello, text, sizeof text));
    case TLS_offered_versions:
        return slice_make(text, hello_versions(&hello, text, sizeof text));
    default:
        return (struct slice){ 0 };
    }
}

struct slice tls_field(const struct conn *conn, enum tls_field field) {
    const struct tls_stream *stream = tls_stream_of(conn);
    const unsigned char *at;
    unsigned len;
    if (!stream)
        return tls_pretended_of(conn) ? tls_pretended_field(tls_pretended_of(conn), field) : (struct slice){ 0 };
    if (stream->state == TLS_HANDSHAKE)
        return stream->hello_state == HELLO_ASKED ? hello_field(stream, field) : (struct slice){ 0 };
    switch (field) {
    case TLS_version:
        return text_of(SSL_get_version(stream->ssl));
    case TLS_cipher:
        return text_of(SSL_get_cipher_name(stream->ssl));
    case TLS_group:
        return text_of(SSL_group_to_name(stream->ssl, (int)SSL_get_negotiated_group(stream->ssl)));
    case TLS_server_name:
        return text_of(SSL_get_servername(stream->ssl, TLSEXT_NAMETYPE_host_name));
    case TLS_alpn:
        SSL_get0_alpn_selected(stream->ssl, &at, &len);
        return slice_make((const char *)at, len);
    case TLS_resumed:
        return SSL_session_reused(stream->ssl) ? SLICE_LIT("yes") : SLICE_LIT("no");
    case TLS_fingerprint:
        return text_of(stream->fingerprint);
    case TLS_offered_alpn:
    case TLS_offered_versions:
        return (struct slice){ 0 };
    default:
        return peer_field(stream->ssl, field);
    }
}
