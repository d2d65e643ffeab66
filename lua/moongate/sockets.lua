-- SPDX-License-Identifier: BSD-2-Clause
-- gate.tcp and gate.udp: sockets of scripts. What waits where is src/script/tcp.c's and udp.c's affair; here
-- are the time-outs and what scripts see.
local core = ...

local gate, C, ffi = core.parts.gate, core.parts.C, core.parts.ffi
local fail, wrong, raise = core.parts.fail, core.parts.wrong, core.raise
local park = core.park
local type, tostring, setmetatable, getmetatable, ipairs = type, tostring, setmetatable, getmetatable, ipairs
local concat, ffi_string, max = table.concat, ffi.string, math.max
local OK, NONE, AGAIN = ffi.C.MG_OK, ffi.C.MG_NONE, ffi.C.MG_WAIT
local EXACTLY, SOME = ffi.C.MG_RECEIVE_EXACTLY, ffi.C.MG_RECEIVE_SOME
local UNTIL, END = ffi.C.MG_RECEIVE_UNTIL, ffi.C.MG_RECEIVE_END
local PLAIN, VERIFIED, ANYBODY = ffi.C.MG_TLS_PLAIN, ffi.C.MG_TLS_VERIFIED, ffi.C.MG_TLS_ANYBODY
local tcp_connect, tcp_connected, tcp_send = C.tcp_connect, C.tcp_connected, C.tcp_send
local tcp_receive, tcp_take, tcp_drop = C.tcp_receive, C.tcp_take, C.tcp_drop
local tcp_rest, tcp_shutdown = C.tcp_rest, C.tcp_shutdown
local tcp_keepalive, tcp_close = C.tcp_keepalive, C.tcp_close
local udp_connect, udp_connected = C.udp_connect, C.udp_connected
local udp_send, udp_receive = C.udp_send, C.udp_receive
local udp_rest, udp_close = C.udp_rest, C.udp_close
local monotonic, error_text = C.monotonic, C.error_text
local out, out_number = ffi.new("struct mg_text"), ffi.new("double[1]")

local CONNECT_TIMEOUT, SEND_TIMEOUT, READ_TIMEOUT = 5, 30, 30
local MAX_LINE, MAX_UNTIL, MAX_ALL, SOME_MOST, MAX_DATAGRAM = 8192, 65536, 1048576, 65536, 65535
local KEEP_IDLE, KEEP_MOST = 60, 16

-- Calls until it need not wait: true; or nil and why. rest(id) takes back that it waits.
local function await(what, timeout, rest, call, id, ...)
  local deadline
  while true do
    local result = call(id, ...)
    if result == OK then return true end
    if result == NONE then return nil, ffi_string(error_text()) end
    if result ~= AGAIN then fail(result, "socket") end
    if type(timeout) ~= "number" or not (timeout >= 0) then
      rest(id)
      wrong(what, "a time-out in seconds", timeout)
    end
    local now = monotonic()
    deadline = deadline or now + timeout
    if now >= deadline then
      rest(id)
      return nil, "timeout"
    end
    park({}, deadline - now, what)
  end
end

local function number_of(what, name, value, default)
  if value == nil then return default end
  if type(value) ~= "number" or not (value >= 0) then wrong(what, name, value) end
  return value
end

-- The seconds that one kind of call may take, by options.NAME or options.timeout.
local function timeout_of(what, options, name, default)
  local value = options[name]
  if value == nil then value = options.timeout end
  return number_of(what, name .. " in seconds", value, default)
end

local function options_of(what, address, options)
  if type(address) ~= "string" then wrong(what, "an address as a string", address) end
  if options ~= nil and type(options) ~= "table" then wrong(what, "a table of options", options) end
  return options or {}
end

-- ---- TCP -------------------------------------------------------------------------------------------------

local tcp_methods = {}
local Tcp = { __index = tcp_methods, __metatable = "tcp" }
gate.tcp = {}

-- Scripts hold a number that stands for the authorities; the pointers stay here.
local trusts = {}
local Trust = { __metatable = "authorities" }

local function trust_object(trust)
  if trust == nil then fail(nil) end
  trusts[#trusts + 1] = ffi.gc(trust, C.trust_free)
  return setmetatable({ #trusts }, Trust)
end

-- How the C side wants it: none, verified or anybody; the authorities or NULL; the name or "".
local function tls_of(tls)
  if not tls then return PLAIN, nil, "" end
  if tls == true then return VERIFIED, nil, "" end
  if type(tls) ~= "table" then wrong("gate.tcp.connect", "tls as true or a table", tls) end
  local name, ca = tls.name or "", tls.ca
  if type(name) ~= "string" then wrong("gate.tcp.connect", "the name in tls as a string", name) end
  if ca ~= nil and getmetatable(ca) ~= "authorities" then
    wrong("gate.tcp.connect", "what gate.tcp.authorities() gave as ca in tls", ca)
  end
  if tls.verify ~= nil and type(tls.verify) ~= "boolean" then
    wrong("gate.tcp.connect", "verify in tls as true or false", tls.verify)
  end
  return tls.verify == false and ANYBODY or VERIFIED, ca and trusts[ca[1]], name
end

--- gate.tcp.authorities(pem)
--- Authorities whose certificates a socket trusts (ca of gate.tcp.connect), as PEM text of one or several certificates.
--- gate.tcp.authorities_file(path): from a file, whose relative path begins at the configuration's folder; a reload
--- reads it again, as the workers' user. Only while the script loads.
--- @return an object
--- @error for text or a file that holds none
--- @example
---   local ok = pcall(gate.tcp.authorities, "none")          -- false
function gate.tcp.authorities(pem)
  if type(pem) ~= "string" then wrong("gate.tcp.authorities", "PEM as a string", pem) end
  if not core.loading then raise("authorities are read while a script loads, not in a hook") end
  local trust = trust_object(C.trust_new(pem, #pem))
  return trust
end
function gate.tcp.authorities_file(path)
  if type(path) ~= "string" then wrong("gate.tcp.authorities_file", "a path", path) end
  if not core.loading then raise("authorities are read while a script loads, not in a hook") end
  local trust = trust_object(C.trust_load(path))
  return trust
end

--- gate.tcp.connect(address, options)
--- Connects to "192.0.2.1:6379", "[2001:db8::1]:6379", "redis.example:6379", "unix:/path" or
--- "unix:@abstract". Which addresses a name may stand for the directive route_allow says; they are tried one
--- after the other. options is a table, all of it may be left out: connect_timeout (seconds, 5),
--- send_timeout and read_timeout (seconds that one call may take, 30 each), timeout (all three), pool (a
--- name, up to 64 bytes). A connection that was given back with sock:keepalive() to the same address and
--- pool is taken again; sock.reused says how often it was.
---
--- With tls = true the connection is encrypted with TLS, and the peer must show a certificate for the name (or the
--- IP address) that the address has, which an authority of the directive fetch_ca (of the system) has signed. tls may
--- be a table, all of it may be left out: name (that the certificate must have, and that the peer is asked for; a
--- unix socket needs one), ca (authorities to trust instead, of gate.tcp.authorities), verify (false trusts whoever
--- answers: then nobody knows who reads what is sent). The handshake counts towards connect_timeout; what fails is
--- "tls: " and why, and no other address is tried. A connection is taken from a pool only by who asks for the same
--- tls. An end without TLS's own word for it is "reset".
---
--- A socket belongs to the hook, timer or task that opened it and ends with it at the latest; what was sent
--- leaves all the same, but what a call could not send as a whole ends with a reset. Tasks that a hook
--- started may use its sockets; one may read while another sends. No call takes longer than
--- script_time_limit leaves. After sock:close() and after its owner's end a socket is stale. script_sockets
--- and script_sockets_each bound how many there are.
---
--- When the network fails, a call returns nil and one of these: "closed" (the peer has ended the
--- connection), "timeout", "refused", "reset", "unreachable", "not found" (no such unix socket),
--- "forbidden", "wrong kind" (a unix socket for datagrams), "busy", "too large", "limit" (of sockets),
--- "exhausted" (descriptors or memory), "denied" (by route_allow), what gate.resolve() says of the name, or
--- "failed: " and the system's words.
--- @where every hook, timers, tasks
--- @yields
--- @return a socket with the fields reused, send_timeout and read_timeout, of which the last two may be
--- changed; or nil and why
--- @example
---   local sock, why = gate.tcp.connect("127.0.0.1:1", { timeout = 0.5 })
---   if not sock then gate.log.info("no connection:", why) end
---   local safe = gate.tcp.connect("127.0.0.1:1", { tls = { name = "redis.example" }, timeout = 0.5 })
function gate.tcp.connect(address, options)
  options = options_of("gate.tcp.connect", address, options)
  local how, trust, name = tls_of(options.tls)
  local pool = options.pool or ""
  if type(pool) ~= "string" then wrong("gate.tcp.connect", "a pool's name as a string", pool) end
  local timeout = timeout_of("gate.tcp.connect", options, "connect_timeout", CONNECT_TIMEOUT)
  local sock = {
    send_timeout = timeout_of("gate.tcp.connect", options, "send_timeout", SEND_TIMEOUT),
    read_timeout = timeout_of("gate.tcp.connect", options, "read_timeout", READ_TIMEOUT),
  }
  local result = tcp_connect(address, #address, pool, #pool, how, trust, name, #name, out_number)
  if result == NONE then return nil, ffi_string(error_text()) end
  if result ~= OK then fail(result, "socket") end
  local id = out_number[0]
  local ok, why = await("gate.tcp.connect", timeout, tcp_rest, tcp_connected, id, out_number)
  if not ok then
    tcp_close(id)
    return nil, why
  end
  sock.id, sock.reused = id, out_number[0]
  return setmetatable(sock, Tcp)
end

local function send_all(sock, data, deadline)
  local id, at, left = sock.id, ffi.cast("const char *", data), #data
  while left > 0 do
    local ok, why = await("send", max(deadline - monotonic(), 0), tcp_rest, tcp_send, id, at, left, out_number)
    if not ok then return nil, why end
    local taken = out_number[0]
    at, left = at + taken, left - taken
  end
  return #data
end

--- sock:send(data)
--- Sends a string, or a list of strings one after the other. It returns when all of it is on its way: at
--- most 64 KiB of it wait in moongate.
--- @where every hook, timers, tasks
--- @yields when the peer is slow
--- @return how many bytes; or nil and why: some of it may have left then
--- @error when another task is sending
function tcp_methods.send(sock, data)
  local timeout = number_of("send", "a time-out in seconds", sock.send_timeout, SEND_TIMEOUT)
  if type(data) == "number" then data = tostring(data) end
  if type(data) == "table" then
    for i, part in ipairs(data) do
      if type(part) ~= "string" and type(part) ~= "number" then
        wrong("send", "strings in the list", data[i])
      end
    end
    data = concat(data)
  end
  if type(data) ~= "string" then wrong("send", "a string or a list of strings", data) end
  if data == "" then
    local result = tcp_rest(sock.id)
    if result ~= OK then fail(result, "socket") end
    return 0
  end
  return send_all(sock, data, monotonic() + timeout)
end

-- What was found, off the socket.
local function take(id, count)
  if count == 0 then return "" end
  local result = tcp_take(id, count, out)
  if result ~= OK then fail(result, "socket") end
  local first = ffi_string(out.at, out.len)
  if #first == count then return first end
  local parts, left = { first }, count - #first
  while left > 0 do
    result = tcp_take(id, left, out)
    if result ~= OK then fail(result, "socket") end
    local part = ffi_string(out.at, out.len)
    parts[#parts + 1] = part
    left = left - #part
  end
  local text = concat(parts)
  return text
end

local function receive(sock, how, size, pattern)
  local id = sock.id
  local ok, why =
    await("receive", sock.read_timeout, tcp_rest, tcp_receive, id, how, size, pattern, #pattern, out_number)
  if not ok then return nil, why end
  local text = take(id, out_number[0])
  if how == UNTIL then tcp_drop(id, #pattern) end
  return text
end

--- sock:receive(count)
--- Waits until so many bytes are there, at most 16 MiB. The peer is held back while nobody receives: then
--- moongate holds 64 KiB. When this or another call that receives fails, what came stays and may be
--- received by the next one.
--- @where every hook, timers, tasks
--- @yields
--- @return the bytes; or nil and why: "closed" when the end comes before
--- @error when another task is receiving
--- @example
---   local sock = gate.tcp.connect("127.0.0.1:1")
---   if sock then
---     local head = sock:receive(4)
---     local rest = head and sock:receive_some()
---   end
function tcp_methods.receive(sock, count)
  if type(count) ~= "number" then wrong("receive", "a number of bytes", count) end
  return receive(sock, EXACTLY, count, "")
end

--- sock:receive_some(max)
--- Waits until something is there and returns that, at most so many bytes (64 KiB). After "closed" from
--- another call it returns what was left.
--- @where every hook, timers, tasks
--- @yields
--- @return at least one byte; or nil and why: "closed" at the end
function tcp_methods.receive_some(sock, max)
  max = number_of("receive_some", "a number of bytes from 1 on", max, SOME_MOST)
  if max < 1 then wrong("receive_some", "a number of bytes from 1 on", max) end
  return receive(sock, SOME, max, "")
end

--- sock:receive_line(max)
--- Waits for a line that ends with a line feed, with a carriage return before it or not, of at most so many
--- bytes (8192).
--- @where every hook, timers, tasks
--- @yields
--- @return the line without its end; or nil and why: "too large" when so many bytes came without an end
function tcp_methods.receive_line(sock, max)
  max = number_of("receive_line", "a number of bytes", max, MAX_LINE)
  local line, why = receive(sock, UNTIL, max, "\n")
  if not line then return nil, why end
  if line:sub(-1) == "\r" then line = line:sub(1, -2) end
  return line
end

--- sock:receive_until(text, max)
--- Waits for these bytes, 1 to 128 of them, with at most so many (64 KiB) before them.
--- @where every hook, timers, tasks
--- @yields
--- @return what stands before them; they are received, too. Or nil and why: "too large" when so many bytes
--- came without them
function tcp_methods.receive_until(sock, text, max)
  if type(text) ~= "string" then wrong("receive_until", "the bytes as a string", text) end
  return receive(sock, UNTIL, number_of("receive_until", "a number of bytes", max, MAX_UNTIL), text)
end

--- sock:receive_all(max)
--- Waits until the peer has ended the connection, or its sending side, and returns what is left, at most so
--- many bytes (1 MiB).
--- @where every hook, timers, tasks
--- @yields
--- @return the bytes; or nil and why
function tcp_methods.receive_all(sock, max)
  return receive(sock, END, number_of("receive_all", "a number of bytes", max, MAX_ALL), "")
end

--- sock:shutdown()
--- Ends the sending side, behind what was sent: the peer sees the end and may still answer.
--- @where every hook, timers, tasks
--- @return true, or nil and why
function tcp_methods.shutdown(sock)
  local result = tcp_shutdown(sock.id)
  if result == NONE then return nil, ffi_string(error_text()) end
  if result ~= OK then fail(result, "socket") end
  return true
end

--- sock:keepalive(idle, size)
--- Gives the connection back to the pool of its address and name, for the next gate.tcp.connect() of any
--- hook of this worker. It is closed when nobody takes it for so many seconds (60), when its peer ends it
--- or sends something, when the pool has more than so many (16; the one unused for longest goes), and when
--- another configuration has taken this one's place. script_sockets_idle bounds all pools together. Call it
--- when the last answer was received as a whole. The socket is stale then.
--- @where every hook, timers, tasks
--- @return true, or nil and why it was closed instead
--- @example
---   local sock = gate.tcp.connect("127.0.0.1:1", { pool = "ping" })
---   if sock and sock:send("PING\r\n") and sock:receive_line() == "+PONG" then sock:keepalive(10, 4) end
function tcp_methods.keepalive(sock, idle, size)
  idle = number_of("keepalive", "seconds", idle, KEEP_IDLE)
  size = number_of("keepalive", "a number of connections", size, KEEP_MOST)
  local result = tcp_keepalive(sock.id, idle, size)
  if result == NONE then return nil, ffi_string(error_text()) end
  if result ~= OK then fail(result, "socket") end
  return true
end

--- sock:close()
--- Closes the socket; what was sent leaves before that.
--- @where every hook, timers, tasks
--- @return whether it was open
function tcp_methods.close(sock)
  local result = tcp_close(sock.id)
  return result == OK
end

-- ---- UDP -------------------------------------------------------------------------------------------------

local udp_methods = {}
local Udp = { __index = udp_methods, __metatable = "udp" }
gate.udp = {}

--- gate.udp.connect(address, options)
--- Opens a socket for datagrams to and from one address, as gate.tcp.connect() takes it; nothing is sent.
--- options is a table, all of it may be left out: connect_timeout (seconds that resolving a name may take,
--- 5), send_timeout and read_timeout (seconds that one call may take, 30 each), timeout (all three). It
--- belongs to whom opened it as a TCP socket does, with the same limits and words for what fails.
--- @where every hook, timers, tasks
--- @yields when there is a name whose addresses are not known
--- @return a socket with the fields send_timeout and read_timeout, which may be changed; or nil and why
--- @example
---   local statsd = gate.udp.connect("127.0.0.1:8125")
---   if statsd then statsd:send("requests:1|c") end
function gate.udp.connect(address, options)
  options = options_of("gate.udp.connect", address, options)
  if options.tls then raise("gate.udp.connect: tls is not offered") end
  local timeout = timeout_of("gate.udp.connect", options, "connect_timeout", CONNECT_TIMEOUT)
  local sock = {
    send_timeout = timeout_of("gate.udp.connect", options, "send_timeout", SEND_TIMEOUT),
    read_timeout = timeout_of("gate.udp.connect", options, "read_timeout", READ_TIMEOUT),
  }
  local result = udp_connect(address, #address, out_number)
  if result == NONE then return nil, ffi_string(error_text()) end
  if result ~= OK then fail(result, "socket") end
  local id = out_number[0]
  local ok, why = await("gate.udp.connect", timeout, udp_rest, udp_connected, id)
  if not ok then
    udp_close(id)
    return nil, why
  end
  sock.id = id
  return setmetatable(sock, Udp)
end

--- datagrams:send(data)
--- Sends a string as one datagram, an empty one too. UDP over IPv4 carries 65507 bytes.
--- @where every hook, timers, tasks
--- @yields when the system has no room for it
--- @return how many bytes; or nil and why: "too large"; "refused" when nobody took one that was sent before
function udp_methods.send(sock, data)
  if type(data) ~= "string" then wrong("send", "a string", data) end
  local ok, why = await("send", sock.send_timeout, udp_rest, udp_send, sock.id, data, #data)
  if not ok then return nil, why end
  return #data
end

--- datagrams:receive(max)
--- Waits for a datagram of at most so many bytes (65535). About 128 KiB of them wait in the system while
--- nobody receives; what comes then is lost.
--- @where every hook, timers, tasks
--- @yields
--- @return the datagram, which may be empty; or nil and why: "too large" when it was, and is lost;
--- "refused" when nobody took one that was sent
function udp_methods.receive(sock, max)
  max = number_of("receive", "a number of bytes", max, MAX_DATAGRAM)
  local ok, why = await("receive", sock.read_timeout, udp_rest, udp_receive, sock.id, max, out)
  if not ok then return nil, why end
  local text = ffi_string(out.at, out.len)
  return text
end

--- datagrams:close()
--- Closes the socket.
--- @where every hook, timers, tasks
--- @return whether it was open
function udp_methods.close(sock)
  local result = udp_close(sock.id)
  return result == OK
end
