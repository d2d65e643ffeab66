// SPDX-License-Identifier: BSD-2-Clause
// Fuzz target for responses: the first byte says where the input is cut, its highest bit asks for narrow limits; the
// second whether it answers a HEAD. The parse must not depend on the cuts, and a response that is taken must read the
// same when it has been written again.
#include "h1_feed.h"
#include "http/h1_write.h"

static void written_again(struct feed *first, bool to_head) {
    const struct response *res = &first->response;
    struct queue out, copy;
    size_t body_len, len, again_len;
    queue_init(&out);
    queue_init(&copy);
    char *body = feed_text(&first->body, &body_len);
    bool chunked = res->framing == BODY_CHUNKED;
    must(h1_write_response(&out, res->status, res->reason, &res->headers, res->framing, res->length,
                           res->framing == BODY_NONE, NULL) == 0 &&
         queue_copy(&copy, body, body_len) == 0 && h1_write_body(&out, &copy, chunked) == 0 &&
         (!chunked || h1_write_last_chunk(&out, &res->trailers) == 0));
    char *text = feed_text(&out, &len);
    struct feed_input input = { .text = slice_make(text, len), .response = true, .to_head = to_head,
                                .roomy = true };
    struct feed *second = feed_new(&input, CUT_NOWHERE, 0);
    must(second->result == H1_DONE && second->used == len && second->response.status == res->status);
    char *again = feed_text(&second->body, &again_len);
    must(again_len == body_len && memcmp(again, body, body_len) == 0);
    free(again);
    feed_free(second);
    free(text);
    free(body);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    if (len < 2)
        return 0;
    struct feed_input input = {
        .text = slice_make((const char *)bytes + 2, len - 2),
        .response = true,
        .to_head = bytes[1] & 1,
        .tight = bytes[0] & 0x80,
    };
    struct feed *feed = feed_all_ways(&input, bytes[0]);
    if (feed->result == H1_DONE) {
        must(feed->response.framing != BODY_NONE || feed->body.bytes == 0);
        must(feed->response.framing != BODY_LENGTH || feed->body.bytes == feed->response.length);
        written_again(feed, input.to_head);
    }
    feed_free(feed);
    return 0;
}
