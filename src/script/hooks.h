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
    X(init, 0, "a configuration is being loaded, before it is in use: hooks.init()") \
    X(worker_init, 0, "the configuration has come into use in this worker: hooks.worker_init()") \
    X(exit, 0, "the configuration is no longer in use in this worker: hooks.exit()") \
    X(resolve, 0, "a name is wanted, DNS is not asked yet: hooks.resolve(name, options)") \
    X(connect, 0, "a client has connected, no byte is read: hooks.connect(conn)") \
    X(tls_hello, 0, "a client begins a TLS handshake, nothing is answered yet: hooks.tls_hello(conn)") \
    X(tls_done, 0, "the TLS handshake is done, no request is read: hooks.tls_done(conn)") \
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
    HOOK_COUNT,
    // What runs without a row in the table: a script's main chunk, gate.after and gate.every, gate.spawn, gate.health.
    HOOK_load = HOOK_COUNT,
    HOOK_timer,
    HOOK_task,
    HOOK_health,
};

const char *hook_name(unsigned hook);
unsigned hook_failure_status(enum hook_id hook);

#endif
