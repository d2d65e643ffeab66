// SPDX-License-Identifier: BSD-2-Clause
// What a proxy must do to header fields between the two sides: hop-by-hop fields, Forwarded and its elder
// relatives, Via, Date, Max-Forwards. Called by the exchange; knows nothing of connections.
#ifndef MOONGATE_HTTP_RULES_H
#define MOONGATE_HTTP_RULES_H

#include "base/addr.h"
#include "conf/conf.h"
#include "http/message.h"

// Removes the fields that belong to one connection (RFC 9110, 7.6.1): Connection, what it names, and those
// that older software sends without naming. Fields that frame or identify a message are never removed because
// a peer names them. keep_upgrade: the Upgrade field stays (the codec writes its own Connection field).
void rules_strip_hop_by_hop(struct headers *headers, bool keep_upgrade);

// X-Forwarded-For, -Proto, -Host and Forwarded (RFC 7239) as the settings say. -ENOMEM.
int rules_add_forwarded(struct request *request, struct arena *arena, const struct conf_settings *settings,
                        const struct addr *client, const struct addr *local)
    __attribute__((warn_unused_result));

// Adds "via: MAJOR.MINOR NAME" (RFC 9110, 7.6.3): the version of the message as it came. Nothing when name is
// NULL.
int rules_add_via(struct headers *headers, struct arena *arena, unsigned major, unsigned minor,
                  const char *name) __attribute__((warn_unused_result));

// A response that came without Date gets one (RFC 9110, 6.6.1).
int rules_add_date(struct headers *headers, struct arena *arena) __attribute__((warn_unused_result));

// What fields say of a body that does not hold once it was changed: digests go (RFC 9530, and Content-MD5),
// and so does Accept-Ranges; a strong ETag becomes a weak one (RFC 9110, 8.8.1). For trailers, too.
// -ENOMEM.
int rules_body_changed(struct headers *headers, struct arena *arena) __attribute__((warn_unused_result));

// Max-Forwards of an OPTIONS or TRACE request (RFC 9110, 7.6.2): 1 when this proxy is to answer it, 0 when it
// may go on, with one less. -ENOMEM. A value that is not a number is passed on as it is.
int rules_max_forwards(struct request *request, struct arena *arena) __attribute__((warn_unused_result));

// Joins Cookie fields with "; ": HTTP/2 may have several (RFC 9113, 8.2.3), HTTP/1 has one.
int rules_join_cookies(struct headers *headers, struct arena *arena) __attribute__((warn_unused_result));

// What becomes of a trailer field (RFC 9110, 6.5.1). Who reads trailers as if they stood in the head must
// find nothing there that frames, routes, authenticates or otherwise changes the message.
enum rules_trailer {
    TRAILER_PASSED,
    TRAILER_DROPPED,
    TRAILER_REFUSED,  // it would frame or route: the message is not to be trusted
};
enum rules_trailer rules_trailer(struct slice name);

#endif
