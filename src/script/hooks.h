// SPDX-License-Identifier: BSD-2-Clause
// The table of hooks: what a script's table may hold, in the order in which a connection meets them. The
// loader, the watchdog's report and the errors take the names from here.
//
// To add a hook: a row here, a caller (script.h for connections, struct exchange_hooks for exchanges), the
// manual.
#ifndef MOONGATE_SCRIPT_HOOKS_H
#define MOONGATE_SCRIPT_HOOKS_H

//  X(name, status of the answer when it fails (0: the connection is closed), documentation)
#define SCRIPT_HOOKS(X) \
    X(connect, 0, "a client has connected, no byte is read: hooks.connect(conn)") \
    X(request, 500, "the head of a request is there, nothing is forwarded yet: hooks.request(req)") \
    X(route, 500, "where to, asked again for each retry: hooks.route(req)") \
    X(request_body, 500, "the body of a request on its way to the upstream: hooks.request_body(req)") \
    X(response, 502, "the head of the response is there, nothing is sent yet: hooks.response(req, res)") \
    X(response_body, 502, "the body of a response on its way to the client: hooks.response_body(req, res)") \
    X(error, 500, "moongate is about to answer an error of its own: hooks.error(req, res)") \
    X(log, 0, "the request is over, whatever became of it: hooks.log(req, res)")

enum hook_id {
#define X(name, status, doc) HOOK_##name,
    SCRIPT_HOOKS(X)
#undef X
    HOOK_COUNT
};

// "load" for HOOK_COUNT, which stands for the script's main chunk.
const char *hook_name(unsigned hook);
unsigned hook_failure_status(enum hook_id hook);

#endif
