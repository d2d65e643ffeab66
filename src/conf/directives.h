// SPDX-License-Identifier: BSD-2-Clause
// Every directive of the configuration, once. The parser's grammar, inheritance, -T, --defaults and the lists
// of moongate.conf(5) are made from these rows. To add a directive: a field in conf.h and a row here; only a
// directive of kind OWN needs code too, own_parse_NAME and own_print_NAME in own_*.c.
//
//  X(name, scopes, kind, owner, field, low, high, flags, syntax, initial, example, documentation)
//
//   scopes   where it may stand. Settings are inherited: top -> frontend -> route. What is decided
//            before a route is known may not stand in a route, where it would have no effect.
//   kind     FLAG NUMBER SIZE TIME WORD (one of WORDS_name) PATH, or OWN
//   owner    the struct of conf.h that holds the field; settings are conf_settings
//   low,high bounds of NUMBER, SIZE (bytes) and TIME (milliseconds), inclusive
//   flags    RESTART  only a restart or an upgrade changes it; all others change with a reload
//            ZERO     0 is allowed beside the bounds
//            MANY     may be repeated in one block
//            BLOCK, MAYBE_BLOCK  is followed by a block, may be
//   syntax   of OWN's arguments
//   initial  what holds when it is not given: the arguments as they would be written; NULL: nothing
//   example  arguments that --defaults shows where there is no initial value
// clang-format off
#ifndef MOONGATE_CONF_DIRECTIVES_H
#define MOONGATE_CONF_DIRECTIVES_H

// These folders are the build's to say; the fallbacks serve a compiler run by hand.
#ifndef MOONGATE_SYSCONFDIR
#define MOONGATE_SYSCONFDIR "/etc/moongate"
#endif
#ifndef MOONGATE_RUNSTATEDIR
#define MOONGATE_RUNSTATEDIR "/run/moongate"
#endif
#ifndef MOONGATE_CONTROL
#define MOONGATE_CONTROL MOONGATE_RUNSTATEDIR "/control.sock"
#endif
#ifndef MOONGATE_DATADIR
#define MOONGATE_DATADIR "/usr/share/moongate"
#endif

//  W(word, value, documentation)
#define WORDS_on_script_error(W) \
    W("fail", SCRIPT_ERROR_FAIL, \
      "the connection is closed, the request answered 500 (by a response hook 502)") \
    W("pass", SCRIPT_ERROR_PASS, "as if the hook had returned nil")
#define WORDS_x_forwarded(W) \
    W("off", X_FORWARDED_OFF, "what the client sent is passed on as it is") \
    W("append", X_FORWARDED_APPEND, "the client's address is added to what it sent: behind another proxy") \
    W("replace", X_FORWARDED_REPLACE, "what the client sent is dropped first: at the edge")
#define WORDS_connections_full(W) \
    W("shed", CONNECTIONS_FULL_SHED, \
      "the one that has been idle between two requests for longest is closed for each new one (without such " \
      "one, a connection that has brought no request for a second); while there is none, new ones wait") \
    W("wait", CONNECTIONS_FULL_WAIT, "new ones wait in the listener's backlog until one ends") \
    W("refuse", CONNECTIONS_FULL_REFUSE, "new ones are closed at once, with a reset")
#define WORDS_verify_client(W) \
    W("off", VERIFY_CLIENT_OFF, "clients are not asked for a certificate") \
    W("optional", VERIFY_CLIENT_OPTIONAL, \
      "they are asked; one without goes on, one with a certificate that is not good is refused") \
    W("required", VERIFY_CLIENT_REQUIRED, "one without a good certificate is refused")
#define WORDS_stapling(W) \
    W("off", STAPLING_OFF, "none is asked for") \
    W("auto", STAPLING_AUTO, "for certificates that demand a staple (RFC 7633)") \
    W("on", STAPLING_ON, "for each certificate")
#define WORDS_protocol(W) \
    W("auto", PROTOCOL_AUTO, "over TLS what the server chooses (ALPN), HTTP/2 before HTTP/1.1; else HTTP/1.1. A " \
      "server that chose HTTP/2 and then requires HTTP/1.1 (HTTP_1_1_REQUIRED) is asked by that alone for ten " \
      "minutes") \
    W("http/1.1", PROTOCOL_HTTP1, "HTTP/1.1") \
    W("h2", PROTOCOL_H2, "HTTP/2; without TLS because it is known that the servers speak it")

#define DIRECTIVES(X) \
    X(include, SCOPE_ALL, OWN, conf, file, 0, 0, DIRECTIVE_MANY, "PATTERN", NULL, "conf.d/*.conf", \
      "Reads the files that match a pattern (as of glob(7)), sorted by name, as if their text stood here." \
      " It may stand in any block; a file must close every block that it opens. A pattern with wildcards " \
      "may match nothing, a plain name must exist. Files may include others, 16 deep and 1024 in all.") \
    X(workers, SCOPE_TOP, OWN, conf, workers, 1, 1024, DIRECTIVE_RESTART, "auto | NUMBER", "auto", NULL, \
      "How many worker processes serve connections, each pinned to a core. With auto there is one for " \
      "each core that the process may use.") \
    X(user, SCOPE_TOP, OWN, conf, user, 0, 0, DIRECTIVE_RESTART, "NAME [GROUP]", "moongate", NULL, \
      "The user, and the group when it is not the user's own, as which the workers run when moongate is " \
      "started by root. Started by another user, everything runs as that one and this is not looked at.") \
    X(control, SCOPE_TOP, PATH, conf, control, 0, 0, DIRECTIVE_RESTART, NULL, "\"" MOONGATE_CONTROL "\"", \
      NULL, \
      "The control socket, on which moongatectl(1) talks to the master. It is made with mode 0600.") \
    X(pid_file, SCOPE_TOP, PATH, conf, pid_file, 0, 0, DIRECTIVE_RESTART, NULL, \
      "\"" MOONGATE_RUNSTATEDIR "/moongate.pid\"", NULL, \
      "Where a daemon (-D) writes the master's process number.") \
    X(error_log, SCOPE_TOP, OWN, conf, error_log, 0, 0, 0, "stderr | syslog | PATH [LEVEL]", \
      "stderr notice", NULL, \
      "Where messages go and from which level on: crit, error, warn, notice, info (what peers did wrong) " \
      "or debug (every change of state). Without a level it is notice. A file is opened again on USR1 and" \
      " moongatectl reopen.") \
    X(watchdog, SCOPE_TOP, TIME, conf, watchdog, 100, 3600000, DIRECTIVE_ZERO, NULL, "10s", NULL, \
      "A worker whose loop has not turned for so long, for an endless script, is reported with the script" \
      " that it was in, killed and replaced. Only its own connections are lost. 0 leaves it alone.") \
    X(connections, SCOPE_TOP, NUMBER, conf, connections, 1, 4194304, DIRECTIVE_RESTART, NULL, "65536", \
      NULL, \
      "Client connections that one worker holds at the same time, tunnels and those that are being closed " \
      "included; connections_full says what happens then. Each may need two descriptors: the limit of open " \
      "files is raised at the start to what all of them need, and where the system does not allow that a " \
      "worker holds only as many connections as there are descriptors for, which is logged. When accepting " \
      "or connecting fails for want of descriptors all the same, idle connections are closed, new ones wait " \
      "for a moment, and a request that needs a new connection to a server is answered 503.") \
    X(connections_full, SCOPE_TOP, WORD, conf, connections_full, 0, 0, 0, NULL, "shed", NULL, \
      "What a worker does with a new connection when it holds as many as connections allows. A line in the " \
      "error log says when that begins and when it is over.") \
    X(tls_handshakes, SCOPE_TOP, NUMBER, conf, tls_handshakes, 1, 1048576, 0, NULL, "1024", NULL, \
      "TLS handshakes of clients that one worker has under way at the same time, each with about 60 KiB of " \
      "memory. For one more, the one that has been under way for longest is closed.") \
    X(upstream_servers, SCOPE_TOP, NUMBER, conf, upstream_servers, 1, 1 << 20, DIRECTIVE_RESTART, NULL, "4096", NULL, \
      "Addresses of servers, over all upstreams, of which all workers know the same (health, weights set by " \
      "moongatectl, counts). Each takes about 500 bytes and 64 to 128 for each worker, of memory that is only " \
      "used as far as there are servers. Of further ones each worker knows for itself.") \
    X(session_cache, SCOPE_TOP, SIZE, conf, session_cache, 64 << 10, 1ull << 36, \
      DIRECTIVE_ZERO | DIRECTIVE_RESTART, NULL, "4m", NULL, \
      "Memory for the sessions of TLS 1.2 clients that take no tickets, for all workers together: about 3000 to the " \
      "MiB, fewer where clients show certificates. It is taken as it is needed. A session is kept until " \
      "session_timeout, over reloads, too; when there is no room, the one goes that was not used for longest, and a " \
      "client whose session is gone makes a full handshake. 0 keeps none. What is in it is as secret as the keys of " \
      "the certificates, but for as long only as a session lasts.") \
    X(ticket_rotation, SCOPE_TOP, TIME, conf, ticket_rotation, 1000, 2592000000, 0, NULL, "8h", NULL, \
      "How often the key of TLS session tickets is changed. It is in the master's memory, the same for all " \
      "workers, and survives reloads; a ticket is good until two further keys have come after its own, or " \
      "until session_timeout. Listeners with a ticket_key are not concerned.") \
    X(memory_limit, SCOPE_TOP, SIZE, conf, memory_limit, 1 << 20, 1ull << 42, DIRECTIVE_ZERO, NULL, "0", \
      NULL, \
      "Memory of one worker: what is resident of it and its own, receive buffers and Lua included, shared " \
      "dictionaries and the program not; looked at a few times a second. Beyond that new connections wait " \
      "and idle ones are closed; where that does not help within a second, requests are answered 503 until " \
      "the worker is a sixteenth below it. A line in the error log says when that begins and when it is " \
      "over. 0 is no limit.") \
    X(receive_buffers, SCOPE_TOP, SIZE, conf, receive_buffers, 1 << 20, 4ull << 30, DIRECTIVE_RESTART, \
      NULL, "16m", NULL, \
      "Memory of one worker that the kernel fills with what arrives, for all connections together. When " \
      "all of it is in use, reading waits until a part is free; nothing is lost.") \
    X(drain_timeout, SCOPE_TOP, TIME, conf, drain_timeout, 0, 604800000, 0, NULL, "30s", NULL, \
      "How long connections may live on after a graceful stop, or after their listener was removed. Those" \
      " that are left then are closed. 0 closes them at once.") \
    X(reload_timeout, SCOPE_TOP, TIME, conf, reload_timeout, 100, 3600000, 0, NULL, "30s", NULL, \
      "How long all workers together may take to load a new configuration. After that the reload has " \
      "failed and the old configuration goes on.") \
    X(resolver, SCOPE_TOP, OWN, conf, resolver, 0, 0, 0, "ADDRESS[:PORT] ...", NULL, "127.0.0.53", \
      "The DNS servers that names are asked for at: at most 16, each with port 53 when none is given. The first " \
      "is asked, the next when it does not answer or fails. Names are taken as they are then: neither " \
      "/etc/hosts nor the search domains of /etc/resolv.conf count. Without this it is /etc/hosts first (read " \
      "for each name that is not in the cache), then the servers and search domains of /etc/resolv.conf, which is " \
      "read again with each reload. Names are those of server lines, and those that " \
      "scripts give: to gate.resolve, in URLs, and as where to send a request; scripts with a resolve hook are asked " \
      "first. Of one name at most 64 addresses are used, of both families some. Each worker asks for itself.") \
    X(resolver_timeout, SCOPE_TOP, TIME, conf, resolver.timeout, 10, 600000, 0, NULL, "5s", NULL, \
      "How long a name may take to be resolved, with all tries at all servers. The first try waits for a part " \
      "of it, each further round through the servers twice as long as the one before.") \
    X(resolver_tries, SCOPE_TOP, NUMBER, conf, resolver.tries, 1, 5, 0, NULL, "3", NULL, \
      "How many times each DNS server is asked for one name before that has failed.") \
    X(resolver_min_ttl, SCOPE_TOP, TIME, conf, resolver.min_ttl, 0, 86400000, 0, NULL, "1s", NULL, \
      "How long an answer is used at least, whatever shorter time it says itself. Must not be longer than " \
      "resolver_max_ttl.") \
    X(resolver_max_ttl, SCOPE_TOP, TIME, conf, resolver.max_ttl, 1, 604800000, 0, NULL, "1h", NULL, \
      "How long an answer is used at most, whatever longer time it says itself.") \
    X(resolver_negative_ttl, SCOPE_TOP, TIME, conf, resolver.negative_ttl, 0, 86400000, 0, NULL, "10s", NULL, \
      "How long a name is not asked for again after the answer that there is no such name or no address of it, " \
      "and after no resolver could be had an answer from. 0 asks each time.") \
    X(resolver_stale, SCOPE_TOP, TIME, conf, resolver.stale, 0, 604800000, 0, NULL, "1h", NULL, \
      "How long beyond its time an answer is used while the resolvers fail to give another. That a name does not " \
      "exist any more is an answer, too. 0 never.") \
    X(resolver_cache, SCOPE_TOP, NUMBER, conf, resolver.cache, 1, 1048576, 0, NULL, "10000", NULL, \
      "Names that each worker keeps with their addresses. When it is full, the one that was not used for the " \
      "longest time goes.") \
    X(resolver_queries, SCOPE_TOP, NUMBER, conf, resolver.queries, 1, 65536, 0, NULL, "256", NULL, \
      "Different names that each worker asks for at the same time; any number may wait for one name. One more " \
      "fails at once.") \
    X(scripts, SCOPE_TOP, OWN, conf, scripts, 0, 0, 0, "PATH ...", "\"" MOONGATE_SYSCONFDIR "/lua\"", \
      NULL, \
      "The folders in which script and Lua's require look, in order. The folder with the ready-made " \
      "scripts (" \
      MOONGATE_DATADIR "/lua) always follows last. Files named *.lua below these folders are read when a" \
      " configuration is loaded, so require needs no right to read them later.") \
    X(script_unsafe, SCOPE_TOP, FLAG, conf, script_unsafe, 0, 0, 0, NULL, "off", NULL, \
      "Gives scripts the parts of Lua that can block or break a worker: io, os.execute, ffi, debug and " \
      "the like.") \
    X(script_safe, SCOPE_TOP, FLAG, conf, script_safe, 0, 0, 0, NULL, "off", NULL, \
      "Stops code of a script that runs for longer than script_run_limit without waiting: its hook fails and" \
      " the worker lives. Without it such code costs the worker (watchdog). Scripts are interpreted then and" \
      " not compiled, which makes them several times slower.") \
    X(script_run_limit, SCOPE_TOP, TIME, conf, script_run_limit, 1, 3600000, 0, NULL, "1s", NULL, \
      "How long code of a script may run without waiting, with script_safe on. Should be shorter than " \
      "watchdog.") \
    X(fetch_ca, SCOPE_TOP, OWN, conf, fetch_ca, 0, 0, 0, "system | FILE", "system", NULL, \
      "The authorities that are trusted when a script asks for https:// (gate.fetch) or for TLS on a socket " \
      "(gate.tcp.connect), as ca says for an upstream.") \
    X(script_memory_limit, SCOPE_TOP, SIZE, conf, script_memory_limit, 4 << 20, 1ull << 40, \
      DIRECTIVE_ZERO, NULL, "256m", NULL, \
      "Memory of the scripts of one worker and configuration: all that Lua holds. Code that asks for more " \
      "fails, as by an error; the worker lives. What Lua has not yet collected counts. 0 is no limit.") \
    X(script_sockets, SCOPE_TOP, NUMBER, conf, script_sockets, 0, 1048576, DIRECTIVE_RESTART, NULL, "1024", \
      NULL, \
      "Sockets that the scripts of one worker have at the same time (gate.tcp, gate.udp), pooled ones that " \
      "are idle and those that are being closed included. Each needs a descriptor: the limit of open files " \
      "is raised for them at the start, and where the system does not allow that scripts get at most a " \
      "quarter of what there is. At the limit an idle one is closed for the new one; without any, " \
      "connect() returns nil and \"limit\". 0 allows none.") \
    X(script_sockets_each, SCOPE_TOP, NUMBER, conf, script_sockets_each, 0, 1048576, 0, NULL, "64", NULL, \
      "Sockets that one request has at the same time, in all of its hooks and in the tasks that these " \
      "started; the same for a connection in its connect hook, for a timer, and for an init, worker_init " \
      "or exit hook. Beyond that connect() returns nil and \"limit\".") \
    X(script_sockets_idle, SCOPE_TOP, NUMBER, conf, script_sockets_idle, 0, 1048576, 0, NULL, "128", NULL, \
      "Connections of scripts that one worker keeps while nobody uses them (keepalive() of gate.tcp). When " \
      "one more is given back, the one unused for longest is closed. 0 keeps none.") \
    X(shared, SCOPE_TOP, OWN, conf, shared, 64 << 10, 1ull << 40, DIRECTIVE_MANY, "NAME SIZE", NULL, \
      "limits 16m", \
      "A dictionary in memory that all workers share: gate.shared \"NAME\" in scripts. It survives " \
      "reloads and the death of a worker. When it is full, what was not used for the longest time goes " \
      "first. A reload may add dictionaries; the size of one that exists changes only with a restart.") \
    X(log_format, SCOPE_TOP, OWN, conf, log_formats, 0, 0, DIRECTIVE_MANY, "NAME TEXT ...", NULL, \
      "brief '$remote_addr $status $total_time'", \
      "Names a format for access_log. The texts are joined; $variable and ${variable} stand for values of" \
      " the request. In double quotes ${NAME} means the environment, so single quotes are the better ones" \
      " here.") \
    X(header_timeout, SCOPE_TOP | SCOPE_FRONTEND, TIME, conf_settings, header_timeout, 1, 86400000, 0, \
      NULL, "10s", NULL, \
      "How long a client may take for a whole request head, from its first byte; for the first request of" \
      " a connection from the moment it was accepted. After that it is answered 408 and closed.") \
    X(tls_handshake_timeout, SCOPE_TOP | SCOPE_FRONTEND, TIME, conf_settings, tls_handshake_timeout, 1, \
      86400000, 0, NULL, "10s", NULL, \
      "How long a TLS handshake with a client may take, from the moment the connection was accepted or its " \
      "connect hook had agreed. After that the connection is closed. header_timeout begins when it is done.") \
    X(body_timeout, SCOPE_SETTINGS, TIME, conf_settings, body_timeout, 1, 86400000, 0, NULL, "60s", NULL, \
      "How long a client may send nothing in the middle of a request body. After that it is answered 408," \
      " or closed when the response has begun.") \
    X(body_min_rate, SCOPE_SETTINGS, OWN, conf_settings, body_min_rate, 1, 1 << 30, 0, \
      "SIZE [grace=TIME]", "64 grace=30s", NULL, \
      "Bytes a second that a client must send of a request body, averaged over each grace time (30s when not" \
      " given). A slower one is answered 408, or closed when the response has begun. Time in which moongate " \
      "itself does not read, because the server is slow, does not count. 0 is no limit.") \
    X(send_timeout, SCOPE_SETTINGS, TIME, conf_settings, send_timeout, 1, 86400000, 0, NULL, "60s", NULL, \
      "How long a client may take nothing of a response that waits for it: what counts is what its side has " \
      "acknowledged. After that, at most a quarter later, the connection is closed.") \
    X(send_min_rate, SCOPE_SETTINGS, OWN, conf_settings, send_min_rate, 1, 1 << 30, 0, \
      "SIZE [grace=TIME]", "0 grace=30s", NULL, \
      "Bytes a second that a client must take of a response that waits for it, averaged over each grace time" \
      " (30s when not given). The connection of a slower one is closed. 0 is no limit: a player that is " \
      "paused takes very little.") \
    X(connections_per_client, SCOPE_TOP | SCOPE_FRONTEND, NUMBER, conf_settings, connections_per_client, 1, \
      4194304, DIRECTIVE_ZERO, NULL, "0", NULL, \
      "Connections that one client, that is one IPv4 address or the first 64 bits of an IPv6 address, may " \
      "have with one worker at the same time, all frontends with a limit together. One more is closed with " \
      "a reset before a script sees it. The kernel spreads a client's connections over the workers. Clients " \
      "behind one address translation or one proxy are one client. Unix sockets are not counted. 0 is no " \
      "limit.") \
    X(keepalive_timeout, SCOPE_TOP | SCOPE_FRONTEND, TIME, conf_settings, keepalive_timeout, 1, 86400000, \
      0, NULL, "75s", \
      NULL, \
      "How long a client's connection may be idle between two requests before it is closed.") \
    X(keepalive_requests, SCOPE_TOP | SCOPE_FRONTEND, NUMBER, conf_settings, keepalive_requests, 1, \
      1ull << 32, \
      DIRECTIVE_ZERO, NULL, "10000", NULL, \
      "Requests that one client connection may carry; the last response says \"Connection: close\". 0 is " \
      "no limit.") \
    X(tunnel_timeout, SCOPE_SETTINGS, TIME, conf_settings, tunnel_timeout, 1, 2592000000, 0, NULL, "1h", \
      NULL, \
      "How long an upgraded connection, such as a WebSocket, may carry no byte in either direction before" \
      " it is closed.") \
    X(linger_timeout, SCOPE_SETTINGS, TIME, conf_settings, linger_timeout, 0, 600000, 0, NULL, "5s", NULL, \
      "How long a client that still sends is read from after the final response of a connection, so that " \
      "the response is not lost to a reset. 0 closes at once.") \
    X(linger_max, SCOPE_SETTINGS, SIZE, conf_settings, linger_max, 1, 1ull << 40, DIRECTIVE_ZERO, NULL, \
      "128m", NULL, \
      "Bytes that are read, and thrown away, of a client that still sends after the final response of a " \
      "connection. After that it is closed, which may cost the client the response. 0 is no limit but " \
      "linger_timeout.") \
    X(notsent_lowat, SCOPE_TOP | SCOPE_FRONTEND, SIZE, conf_settings, notsent_lowat, 4096, 1 << 30, \
      DIRECTIVE_ZERO, NULL, "64k", NULL, \
      "Bytes of a response that the kernel takes for a client (over TCP) beyond what it may send at once: " \
      "TCP_NOTSENT_LOWAT. What is on its way to the client is not counted, so that a fast one is not " \
      "slowed down; for one that reads slowly, or not at all, the kernel would else hold megabytes. A " \
      "reload changes it for connections that are accepted from then on. 0 is what the kernel does by " \
      "itself (net.ipv4.tcp_notsent_lowat).") \
    X(max_pipelined, SCOPE_TOP | SCOPE_FRONTEND, SIZE, conf_settings, max_pipelined, 1, 1 << 30, 0, NULL, \
      "64k", NULL, \
      "Bytes of further requests that a client may send ahead while one of its requests is being answered. " \
      "From there on nothing more is read from it. They are answered in order, one at a time.") \
    X(max_head, SCOPE_TOP | SCOPE_FRONTEND, SIZE, conf_settings, max_head, 512, 1 << 20, 0, NULL, "16k", \
      NULL, \
      "Bytes of a request head: the request line and all fields, and of the trailers of its body besides. " \
      "A larger one is answered 431.") \
    X(max_line, SCOPE_TOP | SCOPE_FRONTEND, SIZE, conf_settings, max_line, 64, 1 << 20, 0, NULL, "8k", NULL, \
      "Bytes of the line of one field of a request, name and value. A longer one is answered 431. A line " \
      "with the size and the extensions of a chunk that is longer is answered 400.") \
    X(max_headers, SCOPE_TOP | SCOPE_FRONTEND, NUMBER, conf_settings, max_headers, 1, 10000, 0, NULL, \
      "100", NULL, \
      "Fields of a request head, with those of the trailers. More are answered 431.") \
    X(max_uri, SCOPE_TOP | SCOPE_FRONTEND, SIZE, conf_settings, max_uri, 64, 1 << 20, 0, NULL, "8k", NULL, \
      "Bytes of a request's target. A longer one is answered 414.") \
    X(max_chunk_overhead, SCOPE_TOP | SCOPE_FRONTEND, SIZE, conf_settings, max_chunk_overhead, 256, 1 << 30, \
      DIRECTIVE_ZERO, NULL, "64k", NULL, \
      "Bytes of chunk framing (sizes, extensions, line ends) that a request body may be ahead of its " \
      "content: what is ahead grows with framing and shrinks with content. Chunks of a few bytes cost " \
      "more than they bring; with the default 16384 of one byte may follow each other, and there is no " \
      "end to those of 6 bytes and more. Beyond that the request is answered 400. 0 is no limit.") \
    X(methods, SCOPE_SETTINGS, OWN, conf_settings, methods, 0, 0, 0, "any | METHOD ...", "any", NULL, \
      "The request methods that are let in, as they are written: case matters. Others are answered 405 with " \
      "the list, before a script or an upstream sees them. With any it is every method but TRACE and TRACK, " \
      "which show a request, with what proxies added, to whoever can have a browser send it.") \
    X(max_body, SCOPE_SETTINGS, SIZE, conf_settings, max_body, 1, 1ull << 40, DIRECTIVE_ZERO, NULL, "1g", \
      NULL, \
      "Bytes of a request body. A larger one is answered 413, at once when its length is announced. 0 is " \
      "no limit: bodies are streamed, so a large one costs no memory.") \
    X(buffer_high, SCOPE_SETTINGS, SIZE, conf_settings, buffer_high, 4096, 1 << 30, 0, NULL, "256k", NULL, \
      "Bytes of a body that may wait for a slow receiver. From there on nothing more is read from the " \
      "sender, which bounds the memory of an exchange.") \
    X(buffer_low, SCOPE_SETTINGS, SIZE, conf_settings, buffer_low, 0, 1 << 30, 0, NULL, "64k", NULL, \
      "When no more than so many bytes wait, the sender is read from again. Must be below buffer_high.") \
    X(half_close, SCOPE_SETTINGS, FLAG, conf_settings, half_close, 0, 0, 0, NULL, "off", NULL, \
      "What it means that a client ends its side of the connection after a whole request. With off it has " \
      "given up: the request ends, also at the upstream server, and so does what its scripts wait for. With " \
      "on it still gets the response, and the connection ends behind it; that such a client is really gone " \
      "is noticed only when it refuses what is sent. An end in the middle of a request is an error either " \
      "way. In tunnels each direction ends by itself, whatever stands here.") \
    X(http2, SCOPE_TOP | SCOPE_FRONTEND, FLAG, conf_settings, http2.on, 0, 0, \
      0, NULL, "on", NULL, \
      "Serves HTTP/2 to clients that begin with its preface (prior knowledge) where there is no TLS, " \
      "which says by ALPN what a client wants. With off such a client is answered as one of HTTP/1 with " \
      "a version that does not exist. An Upgrade to h2c is never taken: RFC 9113 has done away with it, " \
      "and the request is served as HTTP/1.1.") \
    X(http2_max_streams, SCOPE_TOP | SCOPE_FRONTEND, NUMBER, conf_settings, http2.max_streams, 1, 65535, \
      0, NULL, "100", NULL, \
      "Requests that one HTTP/2 connection may have under way at the same time. Further ones are " \
      "refused (REFUSED_STREAM), so that the client may send them again.") \
    X(http2_stream_window, SCOPE_TOP | SCOPE_FRONTEND, SIZE, conf_settings, http2.stream_window, 1024, 1 << 30, \
      0, NULL, "128k", NULL, \
      "Bytes of the body of one request of an HTTP/2 connection that a client may send ahead of what " \
      "its server has taken.") \
    X(http2_connection_window, SCOPE_TOP | SCOPE_FRONTEND, SIZE, conf_settings, http2.connection_window, 65535, 1 << 30, \
      0, NULL, "1m", NULL, \
      "Bytes of all request bodies of an HTTP/2 connection together that a client may send ahead: what " \
      "these bodies can cost in memory. Must not be below http2_stream_window, or one slow server would " \
      "stall the uploads to all others.") \
    X(http2_output_buffer, SCOPE_TOP | SCOPE_FRONTEND, SIZE, conf_settings, http2.output_buffer, 65536, 1 << 30, \
      0, NULL, "2m", NULL, \
      "Bytes of responses of one HTTP/2 connection that may wait for its client. Beyond that its " \
      "streams share this room evenly, each held to buffer_high at most as ever, and further requests " \
      "of the connection wait until there is room again.") \
    X(http2_header_table, SCOPE_TOP | SCOPE_FRONTEND, SIZE, conf_settings, http2.header_table, 0, 65536, \
      0, NULL, "4096", NULL, \
      "Bytes of the table in which a client of HTTP/2 may have field names and values remembered, and " \
      "of ours (RFC 7541). Each connection has both. 0 has none.") \
    X(http2_max_continuations, SCOPE_TOP | SCOPE_FRONTEND, NUMBER, conf_settings, http2.max_continuations, 1, 65536, \
      DIRECTIVE_ZERO, NULL, "16", NULL, \
      "CONTINUATION frames that the head of one HTTP/2 request may have behind its first frame. With " \
      "more the connection is ended. 0 is no limit.") \
    X(http2_max_resets, SCOPE_TOP | SCOPE_FRONTEND, NUMBER, conf_settings, http2.max_resets, 1, 1 << 30, \
      DIRECTIVE_ZERO, NULL, "500", NULL, \
      "Requests that a client may take back (RST_STREAM) on one HTTP/2 connection within ten seconds. " \
      "The connection is ended by more of them. 0 is no limit.") \
    X(http2_max_errors, SCOPE_TOP | SCOPE_FRONTEND, NUMBER, conf_settings, http2.max_errors, 1, 1 << 30, \
      DIRECTIVE_ZERO, NULL, "100", NULL, \
      "Requests that may have to be reset because the client of an HTTP/2 connection broke the protocol " \
      "in them or passed a limit, such as http2_max_streams, within ten seconds. The connection is " \
      "ended by more of them. 0 is no limit.") \
    X(http2_max_empty_frames, SCOPE_TOP | SCOPE_FRONTEND, NUMBER, conf_settings, http2.max_empty_frames, 1, 1 << 30, \
      DIRECTIVE_ZERO, NULL, "500", NULL, \
      "Frames that bring nothing: DATA or header frames without content that end nothing, frames of " \
      "unknown types, frames for requests that are over, within ten seconds. The connection is ended by " \
      "more of them. 0 is no limit.") \
    X(http2_max_pings, SCOPE_TOP | SCOPE_FRONTEND, NUMBER, conf_settings, http2.max_pings, 1, 1 << 30, \
      DIRECTIVE_ZERO, NULL, "1000", NULL, \
      "PING frames on one HTTP/2 connection within ten seconds. The connection is ended by more of " \
      "them. 0 is no limit.") \
    X(http2_max_settings, SCOPE_TOP | SCOPE_FRONTEND, NUMBER, conf_settings, http2.max_settings, 1, 1 << 30, \
      DIRECTIVE_ZERO, NULL, "50", NULL, \
      "SETTINGS frames on one HTTP/2 connection within ten seconds. The connection is ended by more of " \
      "them. 0 is no limit.") \
    X(http2_max_window_updates, SCOPE_TOP | SCOPE_FRONTEND, NUMBER, conf_settings, http2.max_window_updates, 1, 1 << 30, \
      DIRECTIVE_ZERO, NULL, "1000", NULL, \
      "WINDOW_UPDATE frames on one HTTP/2 connection, beyond two for each DATA frame that was sent, " \
      "within ten seconds. The connection is ended by more of them. 0 is no limit.") \
    X(http2_max_priorities, SCOPE_TOP | SCOPE_FRONTEND, NUMBER, conf_settings, http2.max_priorities, 1, 1 << 30, \
      DIRECTIVE_ZERO, NULL, "1000", NULL, \
      "PRIORITY and PRIORITY_UPDATE frames on one HTTP/2 connection within ten seconds. The connection " \
      "is ended by more of them. 0 is no limit.") \
    X(forwarded, SCOPE_SETTINGS, FLAG, conf_settings, forwarded, 0, 0, 0, NULL, "off", NULL, \
      "Adds a Forwarded field (RFC 7239) with for, by, host and proto to each request that is passed on.") \
    X(x_forwarded, SCOPE_SETTINGS, WORD, conf_settings, x_forwarded, 0, 0, 0, NULL, "off", NULL, \
      "Sets X-Forwarded-For, X-Forwarded-Proto and X-Forwarded-Host in each request that is passed on.") \
    X(via, SCOPE_SETTINGS, OWN, conf_settings, via, 0, 0, 0, "off | NAME", "off", NULL, \
      "Adds a Via field (RFC 9110) with this name to each request that is passed on and to its response, so" \
      " that loops and the proxies on the way can be seen. RFC 9110 asks for it, yet some servers leave out" \
      " compression when they see one, so it is off unless asked for.") \
    X(on_script_error, SCOPE_TOP | SCOPE_FRONTEND, WORD, conf_settings, on_script_error, 0, 0, 0, NULL, \
      "fail", NULL, \
      "What a hook that raises an error means for the connection or request. The error is logged and " \
      "counted either way.") \
    X(script_time_limit, SCOPE_SETTINGS, TIME, conf_settings, script_time_limit, 1, 86400000, \
      DIRECTIVE_ZERO, NULL, "60s", NULL, \
      "How long a hook may take from its start to its end, with all that it waits for. A hook that " \
      "waits longer has failed, as if it had raised an error there. For hooks that read or write a body " \
      "each wait of their own counts by itself, and a wait for a body as a whole (read_body) does not count: " \
      "body_timeout and read_timeout hold for it. 0 is no limit. Code that never waits is the watchdog's affair.") \
    X(script_body_limit, SCOPE_SETTINGS, SIZE, conf_settings, script_body_limit, 1, 1 << 30, 0, NULL, "1m", NULL, \
      "Bytes of a body that a hook may ask for as a whole (read_body) or append to one: an error for more. It" \
      " is also what read_body takes when it is called without a limit. While a hook waits for a whole body" \
      " that much of it is held in memory, beyond buffer_high; the hook gets a copy.") \
    X(route_allow, SCOPE_SETTINGS, OWN, conf_settings, route_allow, 0, 0, 0, "public | any | none | NETWORK ...", \
      "public", NULL, \
      "Which addresses a name may stand for that a script gives as where to send a request (the route hook, " \
      "gate.fetch) or to connect to (gate.tcp, gate.udp), and which ones gate.resolve tells that is asked for " \
      "these alone. public: those that are routed in the Internet, not loopback, private, link-local, " \
      "documentation or multicast ones and the like, so that whoever can put a name into a request cannot reach " \
      "this machine or its neighbours by way of the DNS. NETWORK: an address or a network such as 10.0.0.0/8; " \
      "several may stand beside public. Other addresses are passed over, and when none is left the request is " \
      "answered 502. Addresses that a script gives as such, and the servers of upstreams, are not looked at.") \
    X(access_log, SCOPE_SETTINGS, OWN, conf_settings, access_log, 0, 0, 0, \
      "off | stderr | PATH [combined | json | FORMAT]", "off", NULL, \
      "Where a line for each request goes, and in which format: combined (which is meant when none is " \
      "named), json, or one named by log_format. A file is opened again on USR1 and moongatectl reopen.") \
    X(upstream, SCOPE_TOP, OWN, conf, upstreams, 0, 0, DIRECTIVE_MANY | DIRECTIVE_BLOCK, "NAME", NULL, \
      "app", \
      "A group of servers that requests are passed on to, by the name that route and the route hook of " \
      "scripts use. A name begins with a letter. An upstream that nothing can use is an error.") \
    X(server, SCOPE_UPSTREAM, OWN, conf_upstream, servers, 1, 256, DIRECTIVE_MANY, \
      "ADDRESS | NAME:PORT [weight=NUMBER] [backup]; server NAME service [backup]", NULL, \
      "127.0.0.1:9000 weight=2", \
      "One server of an upstream: an IPv4 address with its port, an IPv6 address in brackets with its " \
      "port, or unix:/path. Its weight, 1 when none is given, says how large its share of the requests " \
      "is. NAME:PORT stands for all addresses of a name, as resolver says, each with that weight: they are asked " \
      "for when the configuration is loaded and again whenever their time to live ends (resolver_min_ttl is the " \
      "least). A new address is used at once; one that is gone gets no new requests, and what runs on it goes on. " \
      "While the resolvers fail, the last addresses stay in use. \"NAME service\" asks for services (SRV, " \
      "RFC 2782), such as _http._tcp.app.internal: ports and weights are those of the records, and servers " \
      "of a higher priority number are asked only while none of a lower one may be. At most 256 addresses " \
      "of a line are used. Nothing fails because a name cannot be resolved: until its first answer, requests " \
      "wait for it (queue, queue_timeout); after a failure the line has no servers until it heals. Over TLS, the " \
      "certificate must be for the name (of a service: what follows the labels with an underscore). " \
      "A backup is asked only while none of the other servers may be: all are down, or told to drain. " \
      "That they have max_active is no reason.") \
    X(balance, SCOPE_UPSTREAM, OWN, conf_upstream, balance, 105, 10000, 0, \
      "round_robin | least_conn | random2 | hash KEY [load=PERCENT%]", "round_robin", NULL, \
      "How the server for a request is chosen; the weights count in all of them. round_robin: each in turn. " \
      "least_conn: the one with the fewest requests under way for its weight; among equals each in turn. " \
      "random2: two are drawn, and the one of them with fewer requests under way for its weight is taken: as " \
      "good as least_conn nearly, at the same cost for a thousand servers as for three. Both see what other workers " \
      "have under way as it was some milliseconds ago. hash: the same key goes to the same server, in all " \
      "workers and in every moongate with the same servers; when one of N servers comes or goes, one key in N " \
      "moves. While a server is down or drains, its keys go to the others by their weights, and come back " \
      "afterwards. KEY is client (its address), header NAME, cookie NAME, path (normalised, without the query), " \
      "uri (path and query as they came) or key (what a script has put into req.balance_key). A request " \
      "without a key goes to each server in turn. load=125% bounds what one key can do: a server that has more " \
      "than 125% of its share of a worker's requests under way is passed over for the next one.") \
    X(sticky, SCOPE_UPSTREAM, OWN, conf_upstream, sticky, 1000, 315360000000, 0, \
      "cookie NAME [ttl=TIME] [secure] [httponly] [samesite=strict|lax|none] [path=PATH] [domain=NAME] [key=TEXT]", \
      NULL, "cookie server httponly secure samesite=lax", \
      "A client stays with the server that answered it first. That response sets a cookie (and Cache-Control: " \
      "private, so that no shared cache gives it to others); requests that bring it go to the same " \
      "server while that may be asked, also while it is told to drain, and when it may not are balanced " \
      "anew, and the cookie is set again. The server does not see the cookie. Its value is a keyed " \
      "digest that shows nothing of the server's address; the key is made when moongate starts and stays the " \
      "same through reloads. With key=TEXT it is made of the text, the same after each start and in every moongate " \
      "with that text. ttl is how long the browser keeps the cookie (Max-Age), from when it was set; without, " \
      "until it is closed. path is / when none is given. A value that names no server counts as none.") \
    X(panic, SCOPE_UPSTREAM, NUMBER, conf_upstream, panic, 0, 100, 0, NULL, "0", NULL, \
      "When fewer than so many percent of the servers may be asked (of backups: of the backups, while it is " \
      "their turn), health is not looked at any more and all of them are asked but those that an operator " \
      "has set down or told to drain: the few that are left would not bear the load of all. With 0 this " \
      "happens only when none may be asked, backups included.") \
    X(slow_start, SCOPE_UPSTREAM, TIME, conf_upstream, slow_start, 1000, 3600000, DIRECTIVE_ZERO, NULL, "0", NULL, \
      "How long a server that was down, or has appeared in the DNS, takes until it has its whole weight: it begins " \
      "with a tenth and gets more steadily. 0 gives it the whole at once.") \
    X(tls, SCOPE_UPSTREAM, OWN, conf_upstream, tls, 0, 0, DIRECTIVE_MAYBE_BLOCK, "[{ ... }]", NULL, "", \
      "Connections to the servers are encrypted with TLS, and the certificates of the servers verified, as the " \
      "block says; without one, against the authorities that the system trusts. A server whose handshake " \
      "fails counts as one that could not be connected to: another is tried, as tries allows, then the request " \
      "is answered 502; the log says what failed. Sessions are resumed.") \
    X(protocol, SCOPE_UPSTREAM, WORD, conf_upstream, protocol, 0, 0, 0, NULL, "auto", NULL, \
      "The protocol that the servers of the upstream are spoken to in. Whatever a client speaks goes on in it. " \
      "WebSocket goes to a server of HTTP/2 that offers it (RFC 8441); where it does not, and for other changes of " \
      "the protocol, the request is answered 501.") \
    X(http2_connections, SCOPE_UPSTREAM, NUMBER, conf_upstream, http2_connections, 1, 1024, 0, NULL, "4", NULL, \
      "Connections with HTTP/2 that each worker has to one server at most. One more is made only when those " \
      "that there are have as many requests under way as http2_streams and the server allow; when all have, " \
      "requests wait in the queue.") \
    X(http2_streams, SCOPE_UPSTREAM, NUMBER, conf_upstream, http2_streams, 1, 10000, 0, NULL, "100", NULL, \
      "Requests under way on one HTTP/2 connection at the same time, if the server allows as many.") \
    X(http2_window, SCOPE_UPSTREAM, SIZE, conf_upstream, http2_window, 65535, 1 << 24, 0, NULL, "256k", NULL, \
      "Bytes of one response that a server may send over HTTP/2 beyond what was passed on already. After " \
      "that it waits: so much memory a client that reads slowly may cost, beside buffer_high, and no other " \
      "response on the connection waits for it.") \
    X(http2_ping, SCOPE_UPSTREAM, TIME, conf_upstream, http2_ping, 100, 86400000, DIRECTIVE_ZERO, NULL, "30s", \
      NULL, \
      "After how long a silence a server is asked with a PING whether its HTTP/2 connection lives. Without an " \
      "answer in connect_timeout the connection is closed, and its requests are answered 504 or sent again, as " \
      "retry says. 0 never asks.") \
    X(keepalive, SCOPE_UPSTREAM, OWN, conf_upstream, keepalive, 0, 1048576, 0, "NUMBER [idle=TIME] [warm=NUMBER]", \
      "64 idle=60s", NULL, \
      "Idle connections to this upstream that each worker keeps for later requests, and for how long (60s" \
      " when not given). A server that says how long it keeps them (Keep-Alive: timeout) is believed, less a " \
      "second; of one that does not, moongate notices how long it kept idle connections, and closes them a " \
      "little earlier, so that no request meets one that is just being closed. Beyond that number the one that " \
      "was idle for the longest time is closed. 0 uses each connection once. With warm, each worker keeps so " \
      "many connections to each server ready before they are needed (one, where it speaks HTTP/2).") \
    X(from, SCOPE_UPSTREAM, OWN, conf_upstream, connecting, 0, 0, 0, "ADDRESS | INTERFACE ...", NULL, "192.0.2.7", \
      "The address of this machine that connections to the servers come from: an IPv4 address, an IPv6 address, or " \
      "one of each, without a port; or the name of a network interface that they must leave by, alone or with " \
      "addresses. Servers of a family that no address is given for are connected to as usual, unix sockets always.") \
    X(fast_open, SCOPE_UPSTREAM, FLAG, conf_upstream, connecting.fast_open, 0, 0, 0, NULL, "off", NULL, \
      "Sends the first bytes of a request with the packet that begins the connection (TCP Fast Open), where the server " \
      "has allowed it before and net.ipv4.tcp_fastopen does: a round trip less. That a server cannot be reached is " \
      "noticed only with the request then, which is sent to another only when retry lets it. " \
      "Somebody who has recorded the packet can send it again: for servers that may be asked twice.") \
    X(tcp_keepalive, SCOPE_UPSTREAM, OWN, conf_upstream, connecting, 0, 0, 0, \
      "off | on | [idle=TIME] [interval=TIME] [count=NUMBER]", "off", NULL, \
      "Asks servers that have been silent for the time of idle whether they are still there, again after each interval, " \
      "and gives the connection up after so many questions without an answer. What is not given is the system's own " \
      "(net.ipv4.tcp_keepalive_time and its like); whole seconds, from 1s to 32767s, count from 1 to 127.") \
    X(tcp_user_timeout, SCOPE_UPSTREAM, TIME, conf_upstream, connecting.tcp_user_timeout, 1, 86400000, DIRECTIVE_ZERO, \
      NULL, "0", NULL, \
      "How long what was sent to a server may stay unacknowledged by its machine before the connection is given up. 0 " \
      "leaves it to the system (net.ipv4.tcp_retries2), which is about a quarter of an hour; write_timeout and " \
      "response_timeout hold all the same.") \
    X(proxy_protocol, SCOPE_UPSTREAM, OWN, conf_upstream, proxy_protocol, 0, 0, 0, \
      "off | v1 | v2 [authority] [alpn] [tls] [unique_id] [checksum]", "off", NULL, \
      "Begins each connection to a server with a header of the PROXY protocol that says which client it is for: its " \
      "address and port, and those that it connected to. Version 2 may say more: authority, the name that the client " \
      "asked for (SNI); alpn, the protocol of the client's connection over TLS; tls, its version, cipher and the common " \
      "name of its certificate; unique_id, a name of the client's connection that no other has; checksum, of the header. " \
      "The header comes before TLS with the server. Such a connection belongs to the client's connection: later requests " \
      "of the same one may use it, others never do, so there are about as many as there are clients, and keepalive must " \
      "be chosen with that in mind (warm does nothing); http2_connections does not bound them. Clients of a unix socket have no address to tell, " \
      "requests of scripts (gate.fetch) and health checks no client: v2 says LOCAL for them, v1 UNKNOWN. Servers must " \
      "expect the header, or they answer 400.") \
    X(connect_timeout, SCOPE_UPSTREAM, TIME, conf_upstream, connect_timeout, 1, 600000, 0, NULL, "5s", \
      NULL, \
      "How long one connection to a server may take to be made, with TLS, and with those that are begun beside it " \
      "(connect_stagger). After that the next server is tried, as tries allows; then the request is answered 504.") \
    X(connect_stagger, SCOPE_UPSTREAM, TIME, conf_upstream, connect_stagger, 10, 600000, DIRECTIVE_ZERO, NULL, \
      "250ms", NULL, \
      "How long a server may take to be reached before another is connected to beside it (Happy Eyeballs, RFC 8305); " \
      "where one of several fails the next begins at once. The first connection that is made gets the request, the " \
      "others are given up, and count as failed (eject) if they have taken so long. An address of the other family of " \
      "the same server line comes first, so that a name whose IPv6 addresses cannot be reached is asked by IPv4 in " \
      "this time; else balance chooses. At most four are begun for one request in one try, each counts for max_active, and none beside the " \
      "server that a client sticks to. 0 begins one at a time.") \
    X(response_timeout, SCOPE_UPSTREAM, TIME, conf_upstream, response_timeout, 1, 86400000, 0, NULL, \
      "60s", NULL, \
      "How long a server may take from the end of a request to the whole response head; each interim " \
      "response (at most 32) begins the time anew. After that the request is answered 504, or sent to another server " \
      "where retry says timeout.") \
    X(try_timeout, SCOPE_UPSTREAM, TIME, conf_upstream, try_timeout, 1, 86400000, DIRECTIVE_ZERO, NULL, "0", \
      NULL, \
      "The same as response_timeout, if that is longer, for an idempotent request that may still be sent to another " \
      "server (tries, retry_timeout, retry_budget, retry_body): it is, whatever retry says. The last try has all of " \
      "response_timeout. 0 makes no difference between tries.") \
    X(read_timeout, SCOPE_UPSTREAM, TIME, conf_upstream, read_timeout, 1, 86400000, 0, NULL, "60s", NULL, \
      "How long a server may send nothing in the middle of a response body. After that the response is " \
      "cut off and the client's connection closed.") \
    X(write_timeout, SCOPE_UPSTREAM, TIME, conf_upstream, write_timeout, 1, 86400000, 0, NULL, "60s", \
      NULL, \
      "How long a server may take nothing of a request that waits for it. After that the request is " \
      "answered 504.") \
    X(max_response_head, SCOPE_UPSTREAM, SIZE, conf_upstream, max_response_head, 512, 1 << 20, 0, NULL, \
      "64k", NULL, \
      "Bytes of a response head, all fields, and of those of the interim responses before it. A larger " \
      "one is answered 502.") \
    X(max_response_headers, SCOPE_UPSTREAM, NUMBER, conf_upstream, max_response_headers, 1, 10000, 0, \
      NULL, "200", NULL, \
      "Fields of a response head. More are answered 502.") \
    X(retry, SCOPE_UPSTREAM, OWN, conf_upstream, retry, 0, 0, 0, "off | CONDITION ...", \
      "connect stale idempotent refused", NULL, \
      "When a request is sent again, to another server or by another connection. connect: no connection " \
      "could be made, so nothing was sent. stale: a pooled connection had ended: a request of which " \
      "nothing was sent, or an idempotent one (GET, HEAD, OPTIONS, PUT, DELETE, TRACE) to which nothing " \
      "came back; the next attempt uses a new connection. idempotent: an idempotent request to whose " \
      "new connection the server gave no byte of an answer before it closed it. timeout: an idempotent " \
      "request that was not answered in time. refused: a request of any kind of which an HTTP/2 server said " \
      "that it had not looked at it (REFUSED_STREAM, or above the last stream of GOAWAY). A request such as POST of which one byte may have reached " \
      "a server is never sent twice, so before one is given a pooled connection it is asked whether " \
      "that has ended. A response that has begun or breaks the protocol is never a reason. The route " \
      "hook is asked for each attempt.") \
    X(tries, SCOPE_UPSTREAM, NUMBER, conf_upstream, tries, 1, 100, 0, NULL, "3", NULL, \
      "How many times one request may be sent, with the first, before it is answered 502 or 504. 1 never " \
      "repeats. Servers that have not failed it come first; when two tries have failed and none of these is well, one " \
      "that is down or ejected is asked: what was found of it may be out of date.") \
    X(retry_timeout, SCOPE_UPSTREAM, TIME, conf_upstream, retry_timeout, 1, 86400000, DIRECTIVE_ZERO, NULL, \
      "10s", NULL, \
      "How long after the first attempt another one may still begin. 0 is no limit.") \
    X(retry_budget, SCOPE_UPSTREAM, OWN, conf_upstream, retry_budget, 0, 0, 0, "off | PERCENT [min=NUMBER]", \
      "20% min=10", NULL, \
      "How many requests may be sent again, in percent of those that each worker was given for the upstream in the " \
      "last five to ten seconds, so that servers which fail under their load are not given twice as much. So many as " \
      "min a second (10 when not given) may in any case, counted over the same time. Beyond that a request that fails is " \
      "answered 502, 503 or 504 at once. What a pooled connection's end or a refusal by HTTP/2 causes (stale, refused) is " \
      "not counted: no server has worked for it. off is no limit.") \
    X(retry_body, SCOPE_UPSTREAM, SIZE, conf_upstream, retry_body, 0, 1 << 30, 0, NULL, "64k", NULL, \
      "Bytes of a request body that are held until the response begins, so that the request can be sent " \
      "again. When a body outgrows this nothing more of it is held, and the request is not repeated once a " \
      "part of it was passed on.") \
    X(hedge, SCOPE_UPSTREAM, OWN, conf_upstream, hedge, 0, 0, 0, "off | after=TIME", "off", "after=50ms", \
      "Sends an idempotent request (GET, HEAD, OPTIONS, PUT, DELETE, TRACE) to a second server of the upstream as well, " \
      "when the first one has sent no response head within after of having been sent the whole request: a little more than " \
      "nearly all answers take. The first response head counts, but for one of the second server with a status of 500 or " \
      "more while the first may still answer; the other request is cancelled: its connection is closed, or its stream of " \
      "HTTP/2 reset. Only when both servers fail is the request sent again, as retry says, or answered with an error. " \
      "There is one second request at most, never to the server that was asked already, to one that is not well or has " \
      "max_active, and none beyond retry_budget, which counts it as a request that is sent again: the first server is " \
      "waited for then. A body must be no longer than retry_body. Upgrades and clients that stick to a server (sticky) are " \
      "left alone.") \
    X(max_active, SCOPE_UPSTREAM, NUMBER, conf_upstream, max_active, 1, 1048576, DIRECTIVE_ZERO, NULL, "0", \
      NULL, \
      "Requests and tunnels that all workers together have under way at one server at the same time, connections being " \
      "made and what a reload has left to end included. A request for which every server has so many waits for the first " \
      "to become free (queue): in the order in which they came, and while requests wait in several workers each of these " \
      "has its share. 0 is no limit. Over HTTP/1.1 this bounds the connections in use, too; idle ones (keepalive) and " \
      "those of checks (health) come on top. Servers beyond upstream_servers are counted by each worker for itself.") \
    X(queue, SCOPE_UPSTREAM, NUMBER, conf_upstream, queue, 1, 1048576, DIRECTIVE_ZERO, NULL, "1024", NULL, \
      "Requests that may wait in each worker for a server with less than max_active. One more is " \
      "answered 503 with Retry-After, at once. With 0 none waits.") \
    X(queue_timeout, SCOPE_UPSTREAM, TIME, conf_upstream, queue_timeout, 1, 86400000, 0, NULL, "5s", NULL, \
      "How long a request may wait for a free server. After that it is answered 503 with Retry-After.") \
    X(health, SCOPE_UPSTREAM, OWN, conf_upstream, health, 0, 0, 0, \
      "tcp | tls | h2 | http [[METHOD] PATH] [status=STATUS,...] [body=TEXT] [host=NAME] | script NAME [every=TIME] " \
      "[timeout=TIME] " \
      "[jitter=TIME] [rise=NUMBER] [fall=NUMBER] [start=up|down]", NULL, "http GET /healthz status=200-299 every=5s", \
      "Checks each server of the upstream again and again, on a connection of its own, and leaves those alone " \
      "that are not well. tcp: a connection can be made. tls: and the TLS handshake succeeds, as the tls block " \
      "says. h2: and the server speaks HTTP/2. http: it answers a request (GET / when nothing else is said), in the " \
      "protocol of the upstream, with one of the statuses (200-399 when not given), a body that contains TEXT, " \
      "to its end; host is what stands in the Host field, else the server's name. script: the function of that name, which " \
      "a script has made with gate.health, says so; without one the configuration is refused. A check is made every 5s when not " \
      "given, with a random time up to jitter (a tenth of every) added, so that servers are not all checked at once, " \
      "by one worker for all. It may take timeout (2s, or every if that is shorter). After fall (3) checks in a row " \
      "that failed a server is down, after rise (2) that went well it is up again; the log says so, with the " \
      "reason. A server that was not checked yet counts as up, or with start=down as down, and its first good " \
      "check is enough. State survives reloads and the death of a worker. When too few servers of an upstream " \
      "are well, they are asked all the same (panic).") \
    X(eject, SCOPE_UPSTREAM, OWN, conf_upstream, eject, 0, 0, 0, \
      "off | [connect=NUMBER] [consecutive=NUMBER] [errors=NUMBER] [rate=PERCENT] [latency=NUMBER] [window=TIME] [requests=NUMBER] " \
      "[time=TIME] [most=TIME] [max_ejected=PERCENT]", "connect=2 consecutive=5", NULL, \
      "When a server is ejected, that is, left alone for a while because of what requests came to. connect: after " \
      "so many connections in a row that could not be made (2 when not given). consecutive: after so many requests " \
      "in a row to which no answer came, because the server was too slow, closed or reset the connection, or broke " \
      "the protocol (5); an idle connection that had ended does not count. errors: after so many responses in a row, " \
      "of all workers together, with a status of 500 or more (0). rate: when so many percent of its " \
      "responses have a status of 500 or more (0). latency: when its answers take so many times as long as the " \
      "median of its peers, and 5ms more (0). Rate and latency are over a window (10s) in which a server gave at " \
      "least so many answers (requests, 20), as each worker sees them by itself; an ejection holds for all workers. " \
      "0 looks at none. The ejection lasts for time (1s), a second one in a row twice that, a third three times, up " \
      "to most (30s). Then the server is on trial: each worker gives it one request in a time, until one succeeds, " \
      "or one fails, and it is ejected again. Apart from those that cannot be connected to, no more than max_ejected " \
      "(50%) of an upstream's servers are ejected at once, but one always may be of several. When too many are, the " \
      "ejected ones are asked all the same (panic). A good check (health) does not end an ejection.") \
    X(frontend, SCOPE_TOP, OWN, conf, frontends, 0, 0, DIRECTIVE_MANY | DIRECTIVE_BLOCK, "NAME", NULL, \
      "web", \
      "A way in: the addresses on which connections are accepted, the scripts that look at them, and the " \
      "routes on which requests go. It needs a listen and at least one route or script.") \
    X(listen, SCOPE_FRONTEND, OWN, conf_frontend, listens, 1, 65535, \
      DIRECTIVE_MANY | DIRECTIVE_MAYBE_BLOCK, \
      "ADDRESS [backlog=NUMBER] [proxy_protocol] [tls { ... }]", NULL, \
      "127.0.0.1:8080", \
      "An address on which connections are accepted: an IPv4 address with a port, an IPv6 address in " \
      "brackets with a port, *:PORT for every IPv4 address, or unix:/path. The backlog, 4096 when none is" \
      " given, is how many connections may wait there for each worker; the kernel caps it at " \
      "net.core.somaxconn. With tls connections are encrypted, as the block says; clients must begin with the " \
      "TLS handshake. With proxy_protocol each connection must begin with a header of the PROXY protocol, version 1 or " \
      "2, before TLS, as load balancers send it; the client's address is then what the header says, for limits, " \
      "scripts, logs and servers. One that sends none, a bad one, or not all of it in header_timeout, is closed.") \
    X(proxy_protocol_from, SCOPE_FRONTEND, OWN, conf_frontend, proxy_protocol_from, 0, 0, 0, "any | NETWORK ...", \
      "any", "10.0.0.0/8 2001:db8::7", \
      "Who may connect where listen says proxy_protocol: the load balancers. Any other peer is closed, because whoever " \
      "may send the header can claim to be any client. NETWORK: an address or a network such as 10.0.0.0/8; public, " \
      "all that are routed in the Internet. Unix sockets are always let in. any is for listeners that nobody else can " \
      "reach.") \
    X(script, SCOPE_FRONTEND, OWN, conf_frontend, scripts, 0, 0, DIRECTIVE_MANY, "FILE [KEY=VALUE ...]", \
      NULL, \
      "firewall.lua denied=/etc/moongate/denied.txt", \
      "A Lua script whose hooks see every connection and request of this frontend (moongate-lua(7)). " \
      "Several run in the order in which they are written. The file is looked for in the folders of " \
      "scripts; what follows its name is handed to it as its settings, all of them strings.") \
    X(route, SCOPE_FRONTEND, OWN, conf_frontend, routes, 0, 0, DIRECTIVE_MANY | DIRECTIVE_MAYBE_BLOCK, \
      "PREFIX UPSTREAM [{ ... }]", NULL, "/ app", \
      "Requests whose path begins with the prefix go to that upstream; the longest prefix that fits wins." \
      " A block may hold settings for this route alone. A request that fits no route is answered 404, " \
      "unless a script's route hook says where to.") \
    X(certificate, SCOPE_TLS | SCOPE_UPSTREAM_TLS, OWN, conf_tls, certificates, 0, 0, DIRECTIVE_MANY, "FILE", NULL, \
      "/etc/moongate/site.pem", \
      "A certificate in PEM form, those that sign it behind it in the same file, but for the root. Several " \
      "may be given, each with its key: the one whose name (subjectAltName; *.example.com is every name with " \
      "one more label) the client asks for is used, and of several for the same name, of different kinds of " \
      "key (RSA, ECDSA, Ed25519), the one that the client can verify. A client that asks for no name, or for " \
      "one that none has, gets the first (strict_names). Files are read by the master, before privileges are " \
      "dropped; a reload reads them again, and the next handshakes use them. Of an upstream: one, with which " \
      "moongate shows servers who it is.") \
    X(key, SCOPE_TLS | SCOPE_UPSTREAM_TLS, OWN, conf_tls, certificates, 0, 0, DIRECTIVE_MANY, "FILE", NULL, \
      "/etc/moongate/site.key", \
      "The private key of the certificate before it, in PEM form and not encrypted. Without this line it is " \
      "in the certificate's own file.") \
    X(staple, SCOPE_TLS, OWN, conf_tls, certificates, 0, 0, DIRECTIVE_MANY, "FILE", NULL, \
      "/etc/moongate/site.ocsp", \
      "An OCSP response for the certificate before it, in DER form (openssl ocsp -respout), which is sent to " \
      "clients that ask for it until it is out of date. A reload reads it again. A certificate that demands a " \
      "staple and has none is served with a warning in the error log. Without this line stapling says where one " \
      "comes from.") \
    X(stapling, SCOPE_TLS, WORD, conf_tls, stapling, 0, 0, 0, NULL, "auto", NULL, \
      "Asks the authorities of certificates without a staple file for OCSP responses, in the background: one worker " \
      "for all, over http, at the responder that the certificate names. The file of the certificate must have that of " \
      "its issuer, too. A response is taken when the issuer, or whom it lets, has signed it and it says that the " \
      "certificate is good; it is in the master's memory, for all workers and over reloads, and asked for again half " \
      "way to its end, at least twice a day. A responder that fails is asked again after a second, and ever later, up " \
      "to an hour; what it said before is sent until it is out of date, then nothing.") \
    X(stapling_responder, SCOPE_TLS, OWN, conf_tls, stapling_responder, 0, 0, 0, "URL", NULL, \
      "http://ocsp.internal:8888/", \
      "Where stapling asks, instead of where the certificates say.") \
    X(alpn, SCOPE_TLS, OWN, conf_tls, alpn, 0, 0, 0, "PROTOCOL ...", "h2 http/1.1", NULL, \
      "The protocols that are offered by ALPN (RFC 7301), the preferred one first. A client that asks for " \
      "none of them is refused; one that does not use ALPN speaks HTTP/1.1.") \
    X(versions, SCOPE_TLS | SCOPE_UPSTREAM_TLS, OWN, conf_tls, versions, 0, 0, 0, "TLSv1.2 | TLSv1.3 ...", "TLSv1.2 TLSv1.3", NULL, \
      "The versions of TLS that are spoken.") \
    X(ciphers, SCOPE_TLS | SCOPE_UPSTREAM_TLS, OWN, conf_tls, ciphers, 0, 0, 0, "CIPHER ...", \
      "ECDHE-ECDSA-AES128-GCM-SHA256 ECDHE-RSA-AES128-GCM-SHA256 ECDHE-ECDSA-AES256-GCM-SHA384 " \
      "ECDHE-RSA-AES256-GCM-SHA384 ECDHE-ECDSA-CHACHA20-POLY1305 ECDHE-RSA-CHACHA20-POLY1305", NULL, \
      "Cipher suites of TLS 1.2, by the names of openssl-ciphers(1), in order of preference. The client's " \
      "preference for CHACHA20 is followed: it says so when it has no AES in hardware.") \
    X(ciphersuites, SCOPE_TLS | SCOPE_UPSTREAM_TLS, OWN, conf_tls, ciphersuites, 0, 0, 0, "CIPHER ...", \
      "TLS_AES_128_GCM_SHA256 TLS_AES_256_GCM_SHA384 TLS_CHACHA20_POLY1305_SHA256", NULL, \
      "Cipher suites of TLS 1.3, in order of preference.") \
    X(groups, SCOPE_TLS | SCOPE_UPSTREAM_TLS, OWN, conf_tls, groups, 0, 0, 0, "GROUP ...", "X25519 P-256 P-384", NULL, \
      "Groups for the key exchange, in order of preference.") \
    X(verify_client, SCOPE_TLS, WORD, conf_tls, verify_client, 0, 0, 0, NULL, "off", NULL, \
      "Whether clients must show a certificate that one of client_ca has signed (mutual TLS). What it says is " \
      "in conn.tls for scripts and in the tls_client_ variables of access logs.") \
    X(client_ca, SCOPE_TLS, OWN, conf_tls, client_ca, 0, 0, DIRECTIVE_MANY, "FILE", NULL, \
      "/etc/moongate/clients-ca.pem", \
      "Certificates of the authorities that clients' certificates come from, in PEM form.") \
    X(client_crl, SCOPE_TLS, OWN, conf_tls, client_crl, 0, 0, DIRECTIVE_MANY, "FILE", NULL, \
      "/etc/moongate/clients-crl.pem", \
      "Lists of revoked certificates (CRL), in PEM form: of every authority in the chain of a client's " \
      "certificate, or it is refused. A list that is out of date refuses, too. A reload reads them again, " \
      "and no session from before a change is resumed.") \
    X(session_tickets, SCOPE_TLS, FLAG, conf_tls, session_tickets, 0, 0, 0, NULL, "on", NULL, \
      "Gives clients tickets, with which they resume a session in any worker for less than a full handshake " \
      "costs. Without tickets only clients of TLS 1.2 resume anything (session_cache).") \
    X(session_timeout, SCOPE_TLS, TIME, conf_tls, session_timeout, 1000, 604800000, 0, NULL, "1d", NULL, \
      "How long a session may be resumed (RFC 8446: at most seven days).") \
    X(ticket_key, SCOPE_TLS, OWN, conf_tls, ticket_keys, 0, 0, DIRECTIVE_MANY, "FILE", NULL, \
      "/etc/moongate/ticket.key", \
      "A file of 80 random bytes (openssl rand 80) that is the key of session tickets of this listener, " \
      "instead of the master's own: machines with the same file resume each other's sessions. Of several " \
      "the first encrypts, all decrypt: put a new one first on all machines, reload, and remove the last " \
      "one when its tickets are over.") \
    X(early_data, SCOPE_TLS, FLAG, conf_tls, early_data, 0, 0, 0, NULL, "off", NULL, \
      "Takes up to 16 KiB from clients that resume a TLS 1.3 session before the handshake is done (0-RTT), " \
      "which saves them a round trip. Somebody who has recorded it can send it again: only GET, HEAD, OPTIONS " \
      "and TRACE without a body are let in, with \"Early-Data: 1\" for the server, and all others are answered " \
      "425 (RFC 8470), after which a client tries again.") \
    X(key_log, SCOPE_TLS, OWN, conf_tls, key_log, 0, 0, 0, "FILE", NULL, "/tmp/keys", \
      "Writes the secrets of all connections of this listener to a file, in the form that Wireshark reads. " \
      "For debugging alone: who has the file can read and forge what was sent. The workers open it, so it must " \
      "be in a folder in which their user may write.") \
    X(verify, SCOPE_UPSTREAM_TLS, FLAG, conf_tls, verify, 0, 0, 0, NULL, "on", NULL, \
      "Whether a server must show a certificate that a trusted authority has signed for its name. off trusts " \
      "whoever answers, unless pin says whom.") \
    X(ca, SCOPE_UPSTREAM_TLS, OWN, conf_tls, ca, 0, 0, 0, "system | FILE", "system", NULL, \
      "The authorities that are trusted: those of the system (of the file that SSL_CERT_FILE names, or " \
      "/etc/ssl/certs/ca-certificates.crt and its like), or those of a file in PEM form.") \
    X(crl, SCOPE_UPSTREAM_TLS, OWN, conf_tls, crl, 0, 0, 0, "FILE", NULL, "/etc/moongate/revoked.pem", \
      "What the authorities have revoked: lists in PEM form, one for each authority that signed a part of a " \
      "server's chain. A certificate on them is refused, and so is one whose authority has no list there, or one " \
      "that is out of date. A reload reads the file again.") \
    X(name, SCOPE_UPSTREAM_TLS, OWN, conf_tls, name, 0, 0, 0, "NAME", NULL, "app.internal", \
      "The name that the certificate of each server must have, and that it is asked for (SNI). Without it that is " \
      "what the server line says: a name or an IP address, which the certificate must then have as such.") \
    X(pin, SCOPE_UPSTREAM_TLS, OWN, conf_tls, pins, 0, 0, DIRECTIVE_MANY, "sha256/BASE64 ...", NULL, \
      "sha256/YLh1dUR9y6Kja30RrAn7JKnbQG/uEtLMkBgFF2Fuihg=", \
      "The SHA-256 of public keys (SubjectPublicKeyInfo), in base64, as of RFC 7469: the server's certificate, or " \
      "one that was verified to sign it, must have one of them. With verify off only the server's own counts.") \
    X(strict_names, SCOPE_TLS, FLAG, conf_tls, strict_names, 0, 0, 0, NULL, "off", NULL, \
      "Refuses the handshake of a client that asks for a name that no certificate has, instead of answering " \
      "with the first certificate.")

#endif
