// SPDX-License-Identifier: BSD-2-Clause
// The meaning of a head that has been read whole: fills in the request or response from its first line and
// fields, and refuses what two parsers might take for different messages. Called by h1_parser.c alone.
#ifndef MOONGATE_HTTP_H1_HEAD_H
#define MOONGATE_HTTP_H1_HEAD_H

#include "http/h1_parser.h"

// 0, or -1 when it is refused: h1_parser_fail() was called.
int h1_head_request(struct h1_parser *parser);
int h1_head_response(struct h1_parser *parser);

#endif
