// SPDX-License-Identifier: BSD-2-Clause
// Fuzz target for requests, head and body: the first byte says where the input is cut, its highest bit asks for narrow
// limits. The parse must not depend on the cuts, and a request that is taken must read the same when it has been
// written again, which is what the next server sees.
#include "h1_feed.h"
#include "http/h1_write.h"

static bool framing_field(const struct header *header) {
    return header->name.len == 0 || header->id == HEADER_content_length ||
        header->id == HEADER_transfer_encoding;
}

static void same_fields(const struct headers *a, const struct headers *b) {
    uint32_t j = 0;
    for (uint32_t i = 0; i < a->count; i++) {
        if (framing_field(&a->at[i]))
            continue;
        while (j < b->count && framing_field(&b->at[j]))
            j++;
        must(j < b->count && slice_eq(a->at[i].name, b->at[j].name) &&
             slice_eq(a->at[i].value, b->at[j].value));
        j++;
    }
}

static void written_again(struct feed *first) {
    struct queue out, copy;
    size_t body_len, len, again_len;
    queue_init(&out);
    queue_init(&copy);
    char *body = feed_text(&first->body, &body_len);
    bool chunked = first->request.framing == BODY_CHUNKED;
    must(h1_write_request(&out, &first->request, NULL) == 0 && queue_copy(&copy, body, body_len) == 0 &&
         h1_write_body(&out, &copy, chunked) == 0 &&
         (!chunked || h1_write_last_chunk(&out, &first->request.trailers) == 0));
    char *text = feed_text(&out, &len);
    // The exchange adds a Host that is missing.
    if (first->request.minor == 1 || headers_find(&first->request.headers, HEADER_host)) {
        struct feed_input input = { .text = slice_make(text, len), .roomy = true };
        struct feed *second = feed_new(&input, CUT_NOWHERE, 0);
        must(second->result == H1_DONE && second->used == len);
        char *again = feed_text(&second->body, &again_len);
        must(again_len == body_len && memcmp(again, body, body_len) == 0);
        free(again);
        must(slice_eq(first->request.method, second->request.method));
        must(slice_eq(first->request.raw_path, second->request.raw_path));
        must(slice_eq(first->request.query, second->request.query));
        must(slice_eq(first->request.path, second->request.path));
        must(slice_eq(first->request.authority, second->request.authority));
        same_fields(&first->request.headers, &second->request.headers);
        same_fields(&first->request.trailers, &second->request.trailers);
        feed_free(second);
    }
    free(text);
    free(body);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    if (len == 0)
        return 0;
    struct feed_input input = { .text = slice_make((const char *)bytes + 1, len - 1), .tight = bytes[0] & 0x80 };
    struct feed *feed = feed_all_ways(&input, bytes[0]);
    if (feed->result == H1_DONE) {
        struct slice path = feed->request.path;
        bool star = slice_eq(path, SLICE_LIT("*"));
        bool connect = slice_eq(feed->request.method, SLICE_LIT("CONNECT"));
        must(star || connect || (path.len > 0 && path.at[0] == '/' && !memmem(path.at, path.len, "/../", 4)));
        must(feed->request.framing != BODY_LENGTH || feed->request.length == feed->body.bytes);
        must(feed->request.framing != BODY_NONE || feed->body.bytes == 0);
        written_again(feed);
    }
    feed_free(feed);
    return 0;
}
