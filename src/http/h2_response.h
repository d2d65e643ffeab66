// SPDX-License-Identifier: BSD-2-Clause
// A response head, or its trailers, field by field as HPACK yields them, into a struct response: as strict as
// h1_parser.c and h1_head.c are. nghttp2 has looked at names in lower case, the place of pseudo-header
// fields, connection-specific fields and content lengths (RFC 9113, 8.2 and 8.3); what it lets pass and must
// not be forwarded is refused here. Used by h2_client.c.
#ifndef MOONGATE_HTTP_H2_RESPONSE_H
#define MOONGATE_HTTP_H2_RESPONSE_H

#include "http/message.h"

struct h2_response {
    struct response *response;  // zeroed before each head
    struct arena *arena;
    size_t room;      // bytes that the head may still have, interim ones before it included
    size_t fields;    // and how many fields
    bool to_head;     // the request was HEAD
    bool trailing;    // what comes are trailers
    const char *why;  // it is refused: said once
    bool memory;      // because memory is out
};

// 0, or -1 with `why`.
int h2_response_field(struct h2_response *reader, struct slice name, struct slice value);
// The head is complete; ended: nothing follows it.
int h2_response_head(struct h2_response *reader, bool ended);

#endif
