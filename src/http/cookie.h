// SPDX-License-Identifier: BSD-2-Clause
// Cookie fields of requests (RFC 6265, 5.4): what is in them, and taking something out. For scripts, and for
// the choice of a server by a cookie. Clients write these fields: anything may be in them, and names may come twice.
#ifndef MOONGATE_HTTP_COOKIE_H
#define MOONGATE_HTTP_COOKIE_H

#include "http/message.h"

// Takes the next pair off the front of a field's value; quotes around the cookie's are left out. Pairs without
// "=" or without a name are passed over. False at the end.
bool cookie_next(struct slice *rest, struct slice *ret_name, struct slice *ret_value);
// The value of the first cookie of that name.
bool cookies_find(const struct headers *headers, struct slice name, struct slice *ret_value);
// Takes all cookies of that name out; a field of which nothing is left goes, too. -ENOMEM.
int cookies_remove(struct headers *headers, struct arena *arena, struct slice name)
    __attribute__((warn_unused_result));

#endif
