// SPDX-License-Identifier: BSD-2-Clause
// HTTP/1.1 towards upstream servers: carries one exchange at a time over a conn that may live in a pool in
// between. Made and kept by proxy/dial.c.
//
// What it does with what servers send; t/system/test_response_cases.py has it case by case
//   no response       what h1_parser.h refuses is 502, or cuts the client off when its head has left;
//                     so is an end before the end of the message, orderly or not
//   bytes too many    behind a response, on an idle connection, or before a byte of the request was sent: the
//                     connection is closed. In the last case the request may be sent again
//   204, 304, HEAD    have no content whatever their fields say; a 204 with a length ends its connection
//   205               with content is no response
//   1xx               100 is passed on to who expects it and absorbed else, others are passed on, nothing to
//                     HTTP/1.0; with a length or a coding it is no response; at most 32, whose heads count
//                     towards max_response_head
//   101               only after the whole request, and only to protocols that its Upgrade names
//   an early answer   is passed on at once and the rest of the request goes on to the server while the answer
//                     lasts; at its end both connections are closed, the client's after lingering
#ifndef MOONGATE_HTTP_H1_CLIENT_H
#define MOONGATE_HTTP_H1_CLIENT_H

#include "http/client_codec.h"

// Takes the conn, which is connected. NULL when memory is out (the conn is closed).
struct client_codec *h1_client_new(struct conn *conn, const struct conf_upstream *conf,
                                   const struct client_codec_callbacks *callbacks, void *owner)
    __attribute__((warn_unused_result));

#endif
