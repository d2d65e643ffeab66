-- SPDX-License-Identifier: BSD-2-Clause
-- The module that scripts get from require "moongate": objects for connections, requests and responses over
-- the C API (src/script/api.h, called through LuaJIT's FFI), and the loop that runs hooks. Embedded in the
-- program; src/script/state.c runs it once for each Lua state and src/script/sandbox.lua hands each script a
-- copy of the module. What needs no connection (dictionaries, digests, dates, ...) is in lua/moongate/.
--
-- An object is a small table of a handle and what was asked of it before; everything else goes through its
-- metatable, so that a field costs one call of C, which a compiled trace makes directly. No call of C is a
-- tail call ("return ffi_string(...)"): LuaJIT cannot end a trace there, and after some tries would never
-- compile what calls it. Blocks of --- are moongate-lua(7).
local core = ...

local ffi = require "ffi"
ffi.cdef(core.cdef)
local C = ffi.cast("const struct mg_api *", core.api)
if C.abi ~= ffi.C.MG_ABI or C.size ~= ffi.sizeof("struct mg_api") then
  error("lua/moongate.lua and the program do not fit together: ABI " .. ffi.C.MG_ABI .. " and " .. C.abi, 0)
end

local OK, STALE, NONE = ffi.C.MG_OK, ffi.C.MG_STALE, ffi.C.MG_NONE
local DONE, WAIT, VERDICT = core.done, core.wait, core.verdict
local ffi_string, getinfo, yield = ffi.string, debug.getinfo, coroutine.yield
local error, type, tostring, setmetatable, pairs, ipairs = error, type, tostring, setmetatable, pairs, ipairs
local next, select, tonumber, concat, floor = next, select, tonumber, table.concat, math.floor

-- Where C writes its results.
local out, out_name = ffi.new("struct mg_text"), ffi.new("struct mg_text")
local out_number, out_position = ffi.new("double[1]"), ffi.new("uint32_t[1]")

local c_request_text, c_request_number, c_request_set = C.request_text, C.request_number, C.request_set
local c_request_arg, c_request_arg_next, c_request_conn = C.request_arg, C.request_arg_next, C.request_conn
local c_request_reading, c_request_failure = C.request_reading, C.request_failure
local c_reply_begin, c_reply_field, c_reply_end = C.reply_begin, C.reply_field, C.reply_end
local c_response_status, c_response_set_status = C.response_status, C.response_set_status
local c_response_reason, c_response_set_reason = C.response_reason, C.response_set_reason
local c_header_id, c_headers_get, c_headers_set = C.header_id, C.headers_get, C.headers_set
local c_headers_add, c_headers_remove, c_headers_next = C.headers_add, C.headers_remove, C.headers_next
local c_conn_text, c_conn_number, c_conn_reject = C.conn_text, C.conn_number, C.conn_reject
local c_sleep, c_now, c_log_enabled, c_log, c_error_text = C.sleep, C.now, C.log_enabled, C.log, C.error_text
local c_cidr_find = C.cidr_find

-- An error at the line of the script that called, however deep in our own files it is found.
local function raise(message)
  local level = 2
  while true do
    local info = getinfo(level, "Sl")
    if not info then error(message, 0) end
    if info.currentline >= 0 and not info.source:find("^=moongate") and info.source ~= "=sandbox" then
      error(info.short_src .. ":" .. info.currentline .. ": " .. message, 0)
    end
    level = level + 1
  end
end
core.raise = raise

local function fail(result, what)
  if result == STALE then
    raise("stale: the " .. what .. " is gone")
  end
  raise(ffi_string(c_error_text()))
end

local function wrong(what, expected, value)
  raise(what .. ": expected " .. expected .. ", got " .. (value == nil and "nil" or "a " .. type(value)))
end

-- Text of a value that a script hands over as one: strings and numbers.
local function text_of(value, what)
  if type(value) == "string" then return value end
  if type(value) == "number" then return tostring(value) end
  wrong(what, "a string", value)
end

local function no_field(what, name)
  raise("a " .. what .. ' has no field "' .. tostring(name) .. '": keep your own values in .ctx')
end

-- ---- header fields ----------------------------------------------------------------------------------------

local REQUEST, RESPONSE = ffi.C.MG_REQUEST, ffi.C.MG_RESPONSE

-- The id of a field by its name as scripts write it; bounded, because names may come from clients.
local header_ids, header_ids_room = {}, 1000
local function learn_header(name)
  if type(name) ~= "string" then wrong("a header field's name", "a string", name) end
  local id = c_header_id(name, #name)
  if header_ids_room > 0 then
    header_ids_room = header_ids_room - 1
    header_ids[name] = id
  end
  return id
end

local header_methods = {}
local Headers = { __metatable = "headers" }

--- headers[name]
--- The value of a header field, or nil. The case of the name does not matter. A field that is repeated gives
--- one value, joined by ", " (cookies by "; "); of Set-Cookie it is the first.
--- A field named like one of the methods below is got with headers:get(name).
--- @example
---   local agent = req.headers["user-agent"]
local function headers_get(t, name)
  local id = header_ids[name] or learn_header(name)
  local result = c_headers_get(t[1], t[2], id, name, #name, out)
  if result == OK then
    local text = ffi_string(out.at, out.len)
    return text
  end
  if result == NONE then return nil end
  fail(result, "exchange")
end

--- headers:get(name)
--- The same as headers[name].
header_methods.get = headers_get

local function headers_add(t, name, value)
  if type(name) ~= "string" then wrong("a header field's name", "a string", name) end
  if type(value) == "table" then
    for _, one in ipairs(value) do headers_add(t, name, one) end
    return
  end
  value = text_of(value, 'the value of "' .. name .. '"')
  local result = c_headers_add(t[1], t[2], name, #name, value, #value)
  if result ~= OK then fail(result, "exchange") end
end

--- headers[name] = value
--- Sets a field: the first of that name gets the value, others of that name go; nil removes all of them; a
--- table of strings makes a field of each. Numbers are printed. In req.headers this changes what the upstream
--- server gets, in res.headers what the client gets.
--- @error for a name or value that HTTP does not allow (CR, LF, NUL), and for fields that frame a message or
--- belong to one connection: Content-Length, Transfer-Encoding, Connection, Keep-Alive, TE, Trailer, Upgrade,
--- and Expect of a request. Host can be set, not removed.
--- @where request, route (req.headers); response (res.headers)
--- @example
---   req.headers["x-real-ip"] = req.conn.remote_ip
---   res.headers["server"] = nil
local function headers_set(t, name, value)
  local result
  if type(name) ~= "string" then wrong("a header field's name", "a string", name) end
  if type(value) == "string" then
    result = c_headers_set(t[1], t[2], name, #name, value, #value)
  elseif value == nil then
    result = c_headers_remove(t[1], t[2], name, #name)
  elseif type(value) == "table" then
    headers_set(t, name, nil)
    return headers_add(t, name, value)
  else
    value = text_of(value, 'the value of "' .. name .. '"')
    result = c_headers_set(t[1], t[2], name, #name, value, #value)
  end
  if result ~= OK then fail(result, "exchange") end
end

--- headers:set(name, value)
--- The same as headers[name] = value.
header_methods.set = headers_set

--- headers:add(name, value)
--- Adds one more field (of each string, if value is a table of strings) behind those that are there.
--- @error as headers[name] = value
header_methods.add = headers_add

--- headers:all(name)
--- @return a table with the value of each field of that name, in order; an empty one if there is none
function header_methods.all(t, name)
  local values, n = {}, 0
  if type(name) ~= "string" or #name == 0 then wrong("a header field's name", "a string", name) end
  out_position[0] = 0
  while true do
    local result = c_headers_next(t[1], t[2], name, #name, out_position, out_name, out)
    if result == NONE then return values end
    if result ~= OK then fail(result, "exchange") end
    n = n + 1
    values[n] = ffi_string(out.at, out.len)
  end
end

--- headers:each()
--- Goes through all fields in order; a repeated one comes each time. Names are as the peer wrote them. Fields
--- may be set and removed meanwhile.
--- @example
---   for name, value in req.headers:each() do gate.log.info(name, value) end
-- (No closures here and below: making one is not compiled, nor is what makes one then.)
local function next_field(at)
  out_position[0] = at[1]
  local result = c_headers_next(at[2], at[3], "", 0, out_position, out_name, out)
  if result == OK then
    at[1] = out_position[0]
    local name, value = ffi_string(out_name.at, out_name.len), ffi_string(out.at, out.len)
    return name, value
  end
  if result ~= NONE then fail(result, "exchange") end
end
function header_methods.each(t) return next_field, { 0, t[1], t[2] } end

function Headers.__index(t, name)
  local id = header_ids[name]
  if not id then
    local method = header_methods[name]
    if method then return method end
  end
  return headers_get(t, name)
end
Headers.__newindex = headers_set

-- ---- connections ------------------------------------------------------------------------------------------

-- Slots of a connection's table: its handle, then what does not change.
local CONN_CTX = 4
local conns = {}
core.conns = conns

local function conn_text(t, field)
  local result = c_conn_text(t[1], field, out)
  if result ~= OK then fail(result, "connection") end
  local text = ffi_string(out.at, out.len)
  return text
end

local function conn_number(t, field)
  local result = c_conn_number(t[1], field, out_number)
  if result ~= OK then fail(result, "connection") end
  return out_number[0]
end

local conn_get, conn_methods = {}, {}
local Conn = { __metatable = "connection" }

--- conn.id
--- A number that no other connection of this worker has had.
function conn_get.id(t) return conn_number(t, ffi.C.MG_CONN_ID) end

--- conn.remote_ip
--- The client's address as RFC 5952 prints it, an IPv4 address always as IPv4; "unix" for a unix socket.
function conn_get.remote_ip(t)
  local ip = t[2]
  if not ip then
    ip = conn_text(t, ffi.C.MG_CONN_REMOTE_IP)
    t[2] = ip
  end
  return ip
end

--- conn.remote_port
--- The client's port, 0 for a unix socket.
function conn_get.remote_port(t) return conn_number(t, ffi.C.MG_CONN_REMOTE_PORT) end

--- conn.local_ip
--- The address that the client connected to.
function conn_get.local_ip(t)
  local ip = t[3]
  if not ip then
    ip = conn_text(t, ffi.C.MG_CONN_LOCAL_IP)
    t[3] = ip
  end
  return ip
end

--- conn.local_port
--- The port that the client connected to.
function conn_get.local_port(t) return conn_number(t, ffi.C.MG_CONN_LOCAL_PORT) end

--- conn.started
--- When the connection was accepted, in seconds since 1970, like gate.now().
function conn_get.started(t) return conn_number(t, ffi.C.MG_CONN_STARTED) end

--- conn.bytes_in
--- Bytes received from the client so far; conn.bytes_out: sent to it.
function conn_get.bytes_in(t) return conn_number(t, ffi.C.MG_CONN_BYTES_IN) end
function conn_get.bytes_out(t) return conn_number(t, ffi.C.MG_CONN_BYTES_OUT) end

--- conn.ctx
--- A table for the scripts' own values; it lives as long as the connection, and all scripts of the frontend
--- see the same one. After a reload it begins empty again.
--- @example
---   conn.ctx.office = networks:contains(conn.remote_ip)
function conn_get.ctx(t)
  local ctx = t[CONN_CTX]
  if not ctx then
    ctx = {}
    t[CONN_CTX] = ctx
  end
  return ctx
end

-- What TLS fields are called here, and how they are read. `client` is a table of its own.
local function words(text)
  local list = {}
  for word in text:gmatch("%S+") do list[#list + 1] = word end
  return list
end
local function same(text) return text end
local tls_fields = {
  version = { ffi.C.MG_TLS_VERSION, same },
  cipher = { ffi.C.MG_TLS_CIPHER, same },
  group = { ffi.C.MG_TLS_GROUP, same },
  server_name = { ffi.C.MG_TLS_SERVER_NAME, same },
  alpn = { ffi.C.MG_TLS_ALPN, same },
  resumed = { ffi.C.MG_TLS_RESUMED, function(text) return text == "yes" end },
  fingerprint = { ffi.C.MG_TLS_FINGERPRINT, same },
  offered_alpn = { ffi.C.MG_TLS_OFFERED_ALPN, words },
  offered_versions = { ffi.C.MG_TLS_OFFERED_VERSIONS, words },
}
local client_fields = {
  subject = { ffi.C.MG_TLS_CLIENT_SUBJECT, same },
  issuer = { ffi.C.MG_TLS_CLIENT_ISSUER, same },
  serial = { ffi.C.MG_TLS_CLIENT_SERIAL, same },
  fingerprint = { ffi.C.MG_TLS_CLIENT_FINGERPRINT, same },
  names = { ffi.C.MG_TLS_CLIENT_NAMES, words },
  not_before = { ffi.C.MG_TLS_CLIENT_NOT_BEFORE, tonumber },
  not_after = { ffi.C.MG_TLS_CLIENT_NOT_AFTER, tonumber },
}

local function tls_get(handle, row)
  local result = C.conn_tls(handle, row[1], out)
  if result == OK then return row[2](ffi_string(out.at, out.len)) end
  if result == NONE then return nil end
  fail(result, "connection")
end

local function no_setting()
  raise("what is known of a TLS connection cannot be set")
end

local Client = { __metatable = "certificate", __newindex = no_setting }
function Client.__index(t, name)
  local row = client_fields[name]
  if not row then raise('a client\'s certificate has no field "' .. tostring(name) .. '"') end
  return tls_get(rawget(t, 1), row)
end

local Tls = { __metatable = "tls", __newindex = no_setting }
function Tls.__index(t, name)
  local row = tls_fields[name]
  if row then return tls_get(rawget(t, 1), row) end
  if name ~= "client" then raise('conn.tls has no field "' .. tostring(name) .. '"') end
  if not tls_get(rawget(t, 1), client_fields.fingerprint) then return nil end
  return setmetatable({ rawget(t, 1) }, Client)
end

--- conn.tls
--- What is known of the TLS connection, nil for one without TLS. Its fields, each nil while or where there is no
--- such thing: version ("TLSv1.3"), cipher, group, server_name (what the client asked for), alpn, resumed (true
--- or false), fingerprint (of the client's hello, in the manner of JA4: a client of one make has one, whatever
--- it asks for); in tls_hello also offered_alpn and offered_versions, lists, and of the others only
--- server_name and fingerprint. conn.tls.client is the client's certificate, verified by verify_client, nil if
--- it has shown none: subject, issuer, serial, fingerprint (SHA-256), names (a list: DNS names, mail addresses
--- and URIs), not_before and not_after (seconds since 1970).
--- @example
---   local client = req.conn.tls and req.conn.tls.client
---   req.headers["x-client"] = client and client.subject
function conn_get.tls(t)
  local result = C.conn_tls(t[1], ffi.C.MG_TLS_FIELD_COUNT, out)
  if result == NONE then return nil end
  if result ~= OK then fail(result, "connection") end
  return setmetatable({ t[1] }, Tls)
end

local proxy_fields = {
  version = { ffi.C.MG_PROXY_VERSION, tonumber },
  remote_ip = { ffi.C.MG_PROXY_REMOTE_IP, same },
  remote_port = { ffi.C.MG_PROXY_REMOTE_PORT, tonumber },
  alpn = { ffi.C.MG_PROXY_TLV + 0x01, same },
  authority = { ffi.C.MG_PROXY_TLV + 0x02, same },
  unique_id = { ffi.C.MG_PROXY_TLV + 0x05, same },
}
local proxy_tls_fields = {
  verified = { ffi.C.MG_PROXY_TLS, function(text) return text == "yes" end },
  version = { ffi.C.MG_PROXY_TLS + 0x21, same },
  cn = { ffi.C.MG_PROXY_TLS + 0x22, same },
  cipher = { ffi.C.MG_PROXY_TLS + 0x23, same },
  sig_alg = { ffi.C.MG_PROXY_TLS + 0x24, same },
  key_alg = { ffi.C.MG_PROXY_TLS + 0x25, same },
}

local function proxy_get(handle, row)
  local result = C.conn_proxy(handle, row[1], out)
  if result == OK then return row[2](ffi_string(out.at, out.len)) end
  if result == NONE then return nil end
  fail(result, "connection")
end

local function no_proxy_setting()
  raise("what a proxy has said of a connection cannot be set")
end

local ProxyTls = { __metatable = "proxy's tls", __newindex = no_proxy_setting }
function ProxyTls.__index(t, name)
  local row = proxy_tls_fields[name]
  if not row then raise('conn.proxy.tls has no field "' .. tostring(name) .. '"') end
  return proxy_get(rawget(t, 1), row)
end

local function proxy_tlv(t, kind)
  if type(kind) ~= "number" or kind ~= floor(kind) or kind < 0 or kind > 255 then
    wrong("the type of a TLV", "a number from 0 to 255", kind)
  end
  return proxy_get(rawget(t, 1), { ffi.C.MG_PROXY_TLV + kind, same })
end

local Proxy = { __metatable = "proxy", __newindex = no_proxy_setting }
function Proxy.__index(t, name)
  if name == "tlv" then return proxy_tlv end
  if name == "tls" then
    if proxy_get(rawget(t, 1), proxy_tls_fields.verified) == nil then return nil end
    return setmetatable({ rawget(t, 1) }, ProxyTls)
  end
  local row = proxy_fields[name]
  if not row then raise('conn.proxy has no field "' .. tostring(name) .. '"') end
  return proxy_get(rawget(t, 1), row)
end

--- conn.proxy
--- What the proxy in front has said of the connection (listen ... proxy_protocol), nil where there is none:
--- conn.remote_ip and the like are the client's then. Its fields, each nil where nothing was said: version (1 or 2),
--- remote_ip and remote_port (the proxy's own), alpn, authority (the name that the client asked for), unique_id, and
--- tls, nil unless the client's connection has TLS: version, cipher, verified (true when the client has shown a good
--- certificate), cn (of its subject), sig_alg and key_alg. conn.proxy:tlv(0xe0) is the value of any other type.
--- @example
---   local tls = req.conn.proxy and req.conn.proxy.tls
---   req.headers["x-client"] = tls and tls.verified and tls.cn
function conn_get.proxy(t)
  local result = C.conn_proxy(t[1], ffi.C.MG_PROXY_VERSION, out)
  if result == NONE then return nil end
  if result ~= OK then fail(result, "connection") end
  return setmetatable({ t[1] }, Proxy)
end

--- conn:certificate(name)
--- The handshake goes on with the certificates of that name, whatever name the client has asked for. A verdict:
--- return what it returns.
--- @where tls_hello
--- @error when no certificate of the listener has the name
--- @example
---   if conn.tls.server_name == nil then return conn:certificate("old-clients.example") end
function conn_methods.certificate(t, name)
  if type(name) ~= "string" then wrong("the name of a certificate", "a string", name) end
  local result = C.conn_certificate(t[1], name, #name)
  if result ~= OK then fail(result, "connection") end
  return VERDICT
end

--- conn:tunnel(address)
--- The connection goes to that address as it is, encrypted by the client for whoever is there, from its first
--- byte on; moongate only passes bytes in both directions, under tunnel_timeout. Also "name.example:443": the
--- name is resolved, and of its addresses those that the frontend's route_allow lets in are tried in turn, all
--- within connect_timeout. A verdict: return what it returns.
--- @where tls_hello
--- @error when it is no address or name with a port
--- @example
---   if conn.tls.server_name == "mail.example" then return conn:tunnel("192.0.2.7:443") end
function conn_methods.tunnel(t, address)
  if type(address) ~= "string" then wrong("an address", "a string", address) end
  local result = C.conn_tunnel(t[1], address, #address)
  if result ~= OK then fail(result, "connection") end
  return VERDICT
end

--- conn:reject()
--- Closes the connection; nothing is sent, in tls_hello an alert. A verdict: return what it returns.
--- @where connect, tls_hello, tls_done
--- @example
---   if denied:contains(conn.remote_ip) then return conn:reject() end
function conn_methods.reject(t)
  local result = c_conn_reject(t[1])
  if result ~= OK then fail(result, "connection") end
  return VERDICT
end

function Conn.__index(t, name)
  local get = conn_get[name]
  if get then return get(t) end
  return conn_methods[name] or no_field("connection", name)
end

function Conn.__newindex(_, name)
  raise('"' .. tostring(name) .. '" of a connection cannot be set: keep your own values in conn.ctx')
end

-- Objects stay in `conns` until C takes them out when the connection goes.
local function conn_object(handle)
  local conn = conns[handle]
  if not conn then
    conn = setmetatable({ handle, false, false, false }, Conn)
    conns[handle] = conn
  end
  return conn
end

-- ---- requests ---------------------------------------------------------------------------------------------

-- Slots of a request's table.
local REQ_HEADERS, REQ_RES, REQ_CONN, REQ_CTX, REQ_ARGS = 2, 3, 4, 5, 6

local function request_text(t, field)
  local result = c_request_text(t[1], field, out)
  if result == OK then
    local text = ffi_string(out.at, out.len)
    return text
  end
  if result == NONE then return nil end
  fail(result, "request")
end

local function request_number(t, field)
  local result = c_request_number(t[1], field, out_number)
  if result == OK then return out_number[0] end
  if result == NONE then return nil end
  fail(result, "request")
end

local request_get, request_set, request_methods = {}, {}, {}
local Request = { __metatable = "request" }

--- req.id
--- The id of the request that stands in the logs and in error answers.
function request_get.id(t) return request_text(t, ffi.C.MG_REQ_ID) end

--- req.method
--- The method. Settable, but not from or to HEAD, nor to CONNECT.
function request_get.method(t) return request_text(t, ffi.C.MG_REQ_METHOD) end

--- req.path
--- The path without the query, percent-decoded once, dot segments and repeated slashes removed: what rules
--- look at. Settable: the path that goes to the upstream server is encoded from it; raw_path and target
--- follow.
--- @example
---   req.path = req.path:gsub("^/api/", "/")
function request_get.path(t) return request_text(t, ffi.C.MG_REQ_PATH) end

--- req.raw_path
--- The path as it came.
function request_get.raw_path(t) return request_text(t, ffi.C.MG_REQ_RAW_PATH) end

--- req.readings
--- The ways in which servers may read the path, a list of strings of which the first is req.path. Most paths
--- have no other. One with "//", "/./", "/../", "%2f" or "%5c" has: with such slashes joined or not, dot
--- segments removed or not, encoded slashes and backslashes taken for separators or not ("%2F" stands for a
--- slash that is none). A rule that forbids a path must forbid it when any reading fits, one that allows it
--- only when all do. (Paths that hide dot segments from some servers never come to a script: such a request is
--- answered 400, and so is one whose readings take different routes.)
--- @example
---   for _, path in ipairs(req.readings) do
---     if path:sub(1, 7) == "/admin/" then return req:respond(403) end
---   end
function request_get.readings(t)
  local path = request_text(t, ffi.C.MG_REQ_PATH)
  local list = { path }
  -- Most have no other. A loop that is seldom gone round is never compiled, nor is what it is in.
  local result = c_request_reading(t[1], 1, out)
  if result == NONE then return list end
  local known = { [path] = true }
  for n = 1, 63 do
    result = c_request_reading(t[1], n, out)
    if result == NONE then break end
    if result ~= OK then fail(result, "request") end
    path = ffi_string(out.at, out.len)
    if not known[path] then
      known[path] = true
      list[#list + 1] = path
    end
  end
  return list
end

--- req.query
--- What stands behind the question mark, as it came; nil if there is none. Settable; nil removes it.
function request_get.query(t) return request_text(t, ffi.C.MG_REQ_QUERY) end

--- req.target
--- The request target as it came: path and query, or more of a URL. Settable: "/path?query", percent-encoded
--- already.
function request_get.target(t) return request_text(t, ffi.C.MG_REQ_TARGET) end

--- req.host
--- The host that the client asked for, in lower case, without the port; "" if it named none.
function request_get.host(t) return request_text(t, ffi.C.MG_REQ_HOST) end

--- req.port
--- The port that the client asked for; the scheme's own if it named none.
function request_get.port(t) return request_number(t, ffi.C.MG_REQ_PORT) end

--- req.scheme
--- "http" or "https".
function request_get.scheme(t) return request_text(t, ffi.C.MG_REQ_SCHEME) end

--- req.version
--- "1.0", "1.1" or "2.0". A WebSocket over HTTP/2 reads like one over HTTP/1: GET, with an Upgrade field.
function request_get.version(t) return request_text(t, ffi.C.MG_REQ_VERSION) end

--- req.balance_key
--- What an upstream with "balance hash key" chooses the server by: the same text leads to the same server. nil
--- until a script sets it: such requests go to each server in turn. Settable.
--- @where request, route; readable everywhere
--- @example
---   req.balance_key = req.headers["x-tenant"]
function request_get.balance_key(t) return request_text(t, ffi.C.MG_REQ_BALANCE_KEY) end

--- req.attempt
--- 1 the first time that an upstream server is asked, then one more each time: the route hook is called again
--- for each.
function request_get.attempt(t) return request_number(t, ffi.C.MG_REQ_ATTEMPT) end

local out_why = ffi.new("struct mg_text")

-- The server, kind and text of a failed attempt, n from 0 for the latest back; nil behind the first one.
local function failure(t, n)
  local result = c_request_failure(t[1], n, out, out_name, out_why)
  if result == NONE then return nil end
  if result ~= OK then fail(result, "request") end
  return ffi_string(out.at, out.len), ffi_string(out_name.at, out_name.len), ffi_string(out_why.at, out_why.len)
end

--- req.tried
--- The servers that were asked for this request and failed, in order, as the log names them: a list, empty before the
--- first attempt. One that was asked twice stands there twice.
--- @example
---   function hooks.route(req)
---     if #req.tried >= 2 then return "reserve" end
---   end
function request_get.tried(t)
  local list, n = {}, 0
  while true do
    local server = failure(t, n)
    if not server then return list end
    if server ~= "" then table.insert(list, 1, server) end
    n = n + 1
  end
end

--- req.last_error
--- Why the latest attempt failed: a table of kind, a word like those of $termination ("upstream_connect",
--- "upstream_timeout", "upstream_closed", "upstream_reset", ...), text, which says it in words, and server, as in
--- req.tried (nil when none was free). nil as long as none has failed.
--- @example
---   function hooks.route(req)
---     local err = req.last_error
---     if err and err.kind == "upstream_timeout" then return req:respond(504, nil, err.text .. "\n") end
---   end
function request_get.last_error(t)
  local server, kind, text = failure(t, 0)
  if server then return { kind = kind, text = text, server = server ~= "" and server or nil } end
end

--- req.termination
--- Why the request ends, in the words of the log variable $termination: "none" while all is well,
--- "upstream_timeout", "client_closed", "limit" and so on.
--- @where error, log
--- @example
---   function hooks.error(req, res)
---     if req.termination == "upstream_timeout" then res.headers["retry-after"] = "5" end
---   end
function request_get.termination(t) return request_text(t, ffi.C.MG_REQ_TERMINATION) end

--- req.bytes_received
--- Bytes of the request's body so far, as they came from the client; req.bytes_sent: of the response's body, as
--- they go to it.
function request_get.bytes_received(t) return request_number(t, ffi.C.MG_REQ_BYTES_RECEIVED) end
function request_get.bytes_sent(t) return request_number(t, ffi.C.MG_REQ_BYTES_SENT) end

--- req.total_time
--- Seconds from the first byte of the request until now, in the log hook until its end; req.first_byte_time:
--- until the response began, nil if none did; req.upstream_time: from the connection to the upstream server
--- on, nil if there was none.
--- @example
---   function hooks.log(req, res)
---     if req.total_time > 1 then gate.log.warn("slow:", req.target, req.upstream_time) end
---   end
function request_get.total_time(t) return request_number(t, ffi.C.MG_REQ_TOTAL_TIME) end
function request_get.first_byte_time(t) return request_number(t, ffi.C.MG_REQ_FIRST_BYTE_TIME) end
function request_get.upstream_time(t) return request_number(t, ffi.C.MG_REQ_UPSTREAM_TIME) end

--- req.headers
--- The fields of the request.
function request_get.headers(t)
  local headers = t[REQ_HEADERS]
  if not headers then
    headers = setmetatable({ t[1], REQUEST }, Headers)
    t[REQ_HEADERS] = headers
  end
  return headers
end

--- req.args
--- The arguments of the query by name, decoded; of a repeated one the first value, "" for one without a
--- value, nil for one that is not there. To change what is sent, set req.query.
--- @example
---   local page = tonumber(req.args.page) or 1
local Args = { __metatable = "arguments" }
function Args.__index(t, name)
  if type(name) ~= "string" then wrong("an argument's name", "a string", name) end
  local result = c_request_arg(t[1], name, #name, out)
  if result == OK then
    local text = ffi_string(out.at, out.len)
    return text
  end
  if result ~= NONE then fail(result, "request") end
end
function Args.__newindex() raise("the arguments cannot be set: set req.query") end

function request_get.args(t)
  local args = t[REQ_ARGS]
  if not args then
    args = setmetatable({ t[1] }, Args)
    t[REQ_ARGS] = args
  end
  return args
end

--- req:args_each()
--- Goes through all arguments in order; a repeated one comes each time.
--- @example
---   for name, value in req:args_each() do gate.log.info(name, value) end
local function next_arg(at)
  out_position[0] = at[1]
  local result = c_request_arg_next(at[2], out_position, out_name, out)
  if result == OK then
    at[1] = out_position[0]
    local name, value = ffi_string(out_name.at, out_name.len), ffi_string(out.at, out.len)
    return name, value
  end
  if result ~= NONE then fail(result, "request") end
end
function request_methods.args_each(t) return next_arg, { 0, t[1] } end

--- req:args_all(name)
--- @return a table with every value of an argument, in order
function request_methods.args_all(t, wanted)
  local values = {}
  for name, value in request_methods.args_each(t) do
    if name == wanted then values[#values + 1] = value end
  end
  return values
end

--- req.conn
--- The connection that the request came by.
function request_get.conn(t)
  local conn = t[REQ_CONN]
  if not conn then
    local result = c_request_conn(t[1], out_number)
    if result ~= OK then fail(result, "request") end
    conn = conn_object(out_number[0])
    t[REQ_CONN] = conn
  end
  return conn
end

--- req.ctx
--- A table for the scripts' own values; it lives as long as the request, and all scripts of the frontend see
--- the same one.
function request_get.ctx(t)
  local ctx = t[REQ_CTX]
  if not ctx then
    ctx = {}
    t[REQ_CTX] = ctx
  end
  return ctx
end

local function request_setter(field)
  return function(t, value, name)
    value = text_of(value, "req." .. name)
    local result = c_request_set(t[1], field, value, #value)
    if result ~= OK then fail(result, "request") end
  end
end
request_set.method = request_setter(ffi.C.MG_REQ_METHOD)
request_set.path = request_setter(ffi.C.MG_REQ_PATH)
request_set.target = request_setter(ffi.C.MG_REQ_TARGET)
local set_balance_key = request_setter(ffi.C.MG_REQ_BALANCE_KEY)
function request_set.balance_key(t, value, name)
  if value ~= nil then return set_balance_key(t, value, name) end
  local result = c_request_set(t[1], ffi.C.MG_REQ_BALANCE_KEY, nil, 0)
  if result ~= OK then fail(result, "request") end
end
local set_query = request_setter(ffi.C.MG_REQ_QUERY)
function request_set.query(t, value, name)
  if value ~= nil then return set_query(t, value, name) end
  local result = c_request_set(t[1], ffi.C.MG_REQ_QUERY, nil, 0)
  if result ~= OK then fail(result, "request") end
end

local function reply_field(handle, name, value)
  if type(value) == "table" then
    for _, one in ipairs(value) do reply_field(handle, name, one) end
    return
  end
  if type(name) ~= "string" then wrong("a header field's name", "a string", name) end
  value = text_of(value, 'the value of "' .. name .. '"')
  local result = c_reply_field(handle, name, #name, value, #value)
  if result ~= OK then fail(result, "request") end
end

local function reply_fields(handle, headers, name)
  local value
  name, value = next(headers, name)
  if name == nil then return end
  reply_field(handle, name, value)
  return reply_fields(handle, headers, name)
end

--- req:proxy_tlv(type, value)
--- Says something of the script's own in the PROXY header to the server (proxy_protocol v2): a type from 0xe0 to 0xef and
--- a string. A connection that has begun with it carries only requests that say the same. All values of one request
--- have at most 2048 bytes, with 3 more for each.
--- @where request, route
--- @error for another type, too many bytes, or when the request is on its way
--- @example
---   req:proxy_tlv(0xe0, req.headers["x-tenant"] or "nobody")
function request_methods.proxy_tlv(t, type_, value)
  if type(type_) ~= "number" or type_ ~= floor(type_) then wrong("proxy_tlv", "a type (0xe0 to 0xef)", type_) end
  if type(value) ~= "string" then wrong("proxy_tlv", "a string", value) end
  local result = C.request_proxy_tlv(t[1], type_, value, #value)
  if result ~= OK then fail(result, "request") end
end

--- req:respond(status, headers, body)
--- Answers the request here. headers is a table of names and values (strings, numbers, or tables of them for
--- a field that is repeated), or nil; body is a string or nil; Content-Length is written for it. A verdict:
--- return what it returns. In the response hook it takes the place of the upstream's response.
--- In the error hook it takes the place of moongate's own answer.
--- @where request, route, response, error
--- @error for a status that is not 200 to 599, and for fields as with headers[name] = value
--- @example
---   return req:respond(403, { ["content-type"] = "text/plain" }, "not for you\n")
function request_methods.respond(t, status, headers, body)
  local handle = t[1]
  if type(status) ~= "number" or status ~= floor(status) then
    wrong("respond", "a status (200 to 599)", status)
  end
  local result = c_reply_begin(handle)
  if result ~= OK then fail(result, "request") end
  if headers ~= nil then
    if type(headers) ~= "table" then wrong("respond", "a table of header fields", headers) end
    reply_fields(handle, headers)
  end
  body = body == nil and "" or text_of(body, "respond's body")
  result = c_reply_end(handle, status, body, #body)
  if result ~= OK then fail(result, "request") end
  return VERDICT
end

local redirects = { [301] = true, [302] = true, [303] = true, [307] = true, [308] = true }

--- req:redirect(location, status)
--- Sends the client elsewhere; status is 301, 302 (if it is left out), 303, 307 or 308. A verdict.
--- @where request, route, response, error
--- @example
---   return req:redirect("https://" .. req.host .. req.target, 308)
function request_methods.redirect(t, location, status)
  status = status or 302
  if not redirects[status] then
    raise("redirect: expected status 301, 302, 303, 307 or 308, got " .. tostring(status))
  end
  location = text_of(location, "redirect's location")
  return request_methods.respond(t, status, { location = location, ["content-type"] = "text/plain" },
    location:sub(1, 1000) .. "\n")
end

function Request.__index(t, name)
  local get = request_get[name]
  if get then return get(t) end
  return request_methods[name] or no_field("request", name)
end

function Request.__newindex(t, name, value)
  local set = request_set[name]
  if set then return set(t, value, name) end
  raise('"' .. tostring(name) .. '" of a request cannot be set: keep your own values in req.ctx')
end

-- ---- responses --------------------------------------------------------------------------------------------

local response_get, response_set, response_methods = {}, {}, {}
local Response = { __metatable = "response" }

--- res.status
--- The status; nil in the log hook when no response was begun. Settable (200 to 599), but one that has no body (204, 304) can not become one that has, nor
--- the other way.
--- @where response, error; readable in log, too
function response_get.status(t)
  local status = c_response_status(t[1])
  if status > 0 then return status end
  if status < 0 then fail(status, "response") end
end
function response_set.status(t, value)
  if type(value) ~= "number" or value ~= floor(value) then
    wrong("res.status", "a status (200 to 599)", value)
  end
  local result = c_response_set_status(t[1], value)
  if result ~= OK then fail(result, "response") end
end

--- res.reason
--- The words behind the status; setting the status sets them too. Settable.
--- @where response, error
function response_get.reason(t)
  local result = c_response_reason(t[1], out)
  if result ~= OK then fail(result, "response") end
  local text = ffi_string(out.at, out.len)
  return text
end
function response_set.reason(t, value)
  value = text_of(value, "res.reason")
  local result = c_response_set_reason(t[1], value, #value)
  if result ~= OK then fail(result, "response") end
end

--- res.headers
--- The fields of the response.
--- @where response, error; readable in log, too
function response_get.headers(t)
  local headers = t[2]
  if not headers then
    headers = setmetatable({ t[1], RESPONSE }, Headers)
    t[2] = headers
  end
  return headers
end

--- res.upstream
--- The upstream server that answered, as the log names it.
--- @where response
function response_get.upstream(t) return request_text(t, ffi.C.MG_REQ_UPSTREAM) end

function Response.__index(t, name)
  local get = response_get[name]
  if get then return get(t) end
  return response_methods[name] or no_field("response", name)
end

function Response.__newindex(t, name, value)
  local set = response_set[name]
  if set then return set(t, value) end
  raise('"' .. tostring(name) .. '" of a response cannot be set')
end

-- ---- sets of networks -------------------------------------------------------------------------------------

-- Scripts hold a number that stands for the set; the pointers stay here.
local cidr_sets = {}
local set_methods = {}
local Set = { __index = set_methods, __metatable = "networks" }

local function cidr_new()
  if not core.loading then raise("sets of networks are made while a script loads, not in a hook") end
  local set = C.cidr_new()
  if set == nil then raise("memory is out") end
  return ffi.gc(set, C.cidr_free)
end

local function cidr_object(set, labels)
  if C.cidr_build(set) ~= OK then fail(nil) end
  cidr_sets[#cidr_sets + 1] = set
  return setmetatable({ #cidr_sets, labels }, Set)
end

local gate = {}

--- gate.cidr(networks)
--- A set of IPv4 and IPv6 networks from a table: addresses and networks as a list, or as names with a label
--- each, or both. Only while the script loads.
--- @error for text that is no network, at the script's line
--- @example
---   local office = gate.cidr { "10.0.0.0/8", "2001:db8::/32", ["192.0.2.0/24"] = "guests" }
function gate.cidr(networks)
  if type(networks) ~= "table" then wrong("gate.cidr", "a table of networks", networks) end
  local set, labels = cidr_new(), { [0] = true }
  local function add(network, index)
    if type(network) ~= "string" then wrong("gate.cidr", "networks as strings", network) end
    local result = C.cidr_add(set, network, #network, index)
    if result ~= OK then fail(result) end
  end
  for key, value in pairs(networks) do
    if type(key) == "number" then
      add(value, 0)
    else
      labels[#labels + 1] = value
      add(key, #labels)
    end
  end
  return cidr_object(set, labels)
end

--- gate.cidr_file(path)
--- A set from a file: one network a line, # begins a comment. A relative path begins at the configuration's
--- folder. Only while the script loads; a reload reads the file again.
--- @error when the file cannot be read or a line is no network, with file:line:column
--- @example
---   local denied = gate.cidr_file(settings.denied)
function gate.cidr_file(path)
  if type(path) ~= "string" then wrong("gate.cidr_file", "a path", path) end
  local set = cidr_new()
  local result = C.cidr_load(set, path, 0)
  if result ~= OK then fail(result) end
  return cidr_object(set, { [0] = true })
end

--- set:find(ip)
--- @return the label of the longest network that holds the address (true for one without a label), or nil;
--- nil too for a text that is no address
function set_methods.find(t, ip)
  if type(ip) ~= "string" then wrong("find", "an IP address", ip) end
  local value = c_cidr_find(cidr_sets[t[1]], ip, #ip)
  if value < 0 then return nil end
  return t[2][value]
end

--- set:contains(ip)
--- @return whether a network of the set holds the address
--- @example
---   if denied:contains(conn.remote_ip) then return conn:reject() end
function set_methods.contains(t, ip)
  if type(ip) ~= "string" then wrong("contains", "an IP address", ip) end
  return c_cidr_find(cidr_sets[t[1]], ip, #ip) >= 0
end

--- set:count()
--- @return how many networks the set has
function set_methods.count(t)
  local number = C.cidr_count(cidr_sets[t[1]])
  return number
end

--- gate.network(ip, bits4, bits6)
--- The network of so many bits (of IPv4, of IPv6; all if left out) that an address is in: a key for what
--- clients of one network share.
--- @return the network as text, or nil if `ip` is no address
--- @example
---   local key = gate.network(conn.remote_ip, 24, 48)        -- "192.0.2.0/24"
function gate.network(ip, bits4, bits6)
  if type(ip) ~= "string" then wrong("gate.network", "an IP address", ip) end
  local result = C.ip_network(ip, #ip, bits4 or 32, bits6 or 128, out)
  if result == NONE then return nil end
  if result ~= OK then fail(result) end
  local text = ffi_string(out.at, out.len)
  return text
end

--- gate.hash(text)
--- @return a number from 0 to 4294967295, the same for the same text in all workers and at all times: for
--- stable choices
function gate.hash(text)
  if type(text) ~= "string" then wrong("gate.hash", "a string", text) end
  local number = C.hash(text, #text)
  return number
end

-- ---- settings ---------------------------------------------------------------------------------------------

local converters = {
  string = function(text) return text end,
  number = function(text) return tonumber(text), "a number" end,
  boolean = function(text)
    if text == "on" then return true end
    if text == "off" then return false end
    return nil, "on or off"
  end,
  list = function(text)
    local items = {}
    for item in text:gmatch("[^,%s]+") do items[#items + 1] = item end
    return items
  end,
}

--- gate.settings(settings, types)
--- Checks what the configuration hands to a script and converts it. types names each setting and says what it
--- is: "string", "number", "boolean" (on or off) or "list" (parted by commas or spaces).
--- @return a table with the settings that are given
--- @error for a setting that is not named, or has a value of another type
--- @example
---   local settings = gate.settings(..., { denied = "string", rate = "number", methods = "list" })
function gate.settings(settings, types)
  local values = {}
  for name, text in pairs(settings) do
    local convert = converters[types[name]]
    if not convert then
      local names = {}
      for known in pairs(types) do names[#names + 1] = known end
      table.sort(names)
      raise('unknown setting "' .. name .. '", expected one of ' .. concat(names, ", "))
    end
    local value, expected = convert(tostring(text))
    if value == nil then raise("setting " .. name .. '="' .. tostring(text) .. '": expected ' .. expected) end
    values[name] = value
  end
  return values
end

-- ---- waiting, time, logs ----------------------------------------------------------------------------------

--- gate.sleep(seconds)
--- Waits, while the worker goes on with others. Fractions are allowed, to the millisecond.
--- @where every hook
--- @yields
--- @example
---   gate.sleep(0.5)
function gate.sleep(seconds)
  if type(seconds) ~= "number" then wrong("gate.sleep", "seconds", seconds) end
  local result = c_sleep(seconds)
  if result ~= OK then fail(result) end
  yield(WAIT)
end

--- gate.now()
--- @return the time in seconds since 1970, with fractions
function gate.now()
  local number = c_now()
  return number
end

--- gate.worker
--- The number of this worker, from 0.
gate.worker = core.worker

--- gate.generation
--- The number of the configuration that is in use; each reload has the next.
gate.generation = core.generation

--- gate.version
--- The version of moongate.
gate.version = core.version

--- gate.log.info(...)
--- Writes its arguments, parted by spaces, to the error log, with the script's name and the request's id. The
--- levels are debug, info, notice, warn and error; the configuration's error_log says from which one on.
--- @example
---   gate.log.warn("no canary for", req.host)
local log_levels = { error = 1, warn = 2, notice = 3, info = 4, debug = 5 }

local function log_at(level, script)
  return function(...)
    if c_log_enabled(level) == 0 then return end
    local count = select("#", ...)
    local parts = { ... }
    for i = 1, count do parts[i] = tostring(parts[i]) end
    local text = concat(parts, " ", 1, count)
    c_log(level, script, text, #text)
  end
end

-- ---- for the C side and the sandbox -----------------------------------------------------------------------

-- What the files in lua/moongate/ build on.
core.parts = { gate = gate, C = C, ffi = ffi, fail = fail, wrong = wrong, raise = raise, text_of = text_of,
  request_get = request_get, request_methods = request_methods, response_methods = response_methods }

-- Each script has a module of its own: what one changes in it, no other sees.
local function copy_of(from)
  local copy = {}
  for name, value in pairs(from) do copy[name] = type(value) == "table" and copy_of(value) or value end
  return copy
end

function core.make_gate(script)
  local copy = copy_of(gate)
  copy.log = {}
  for name, level in pairs(log_levels) do copy.log[name] = log_at(level, script) end
  return copy
end

-- What a pooled coroutine runs (src/script/coroutine.c): resumed with a hook's function, the request's slot
-- and handle (false if its object is in the slot already) and whether there is a response. Slot 0: a
-- connection; -1: a job, which has nothing to look at; -2: a name, with its kind in place of the response. It is never compiled, so that each hook is compiled as a trace of its own.
local live = {}
core.live = live
function core.runner(hook, slot, handle, with_response)
  while true do
    if slot == -2 then
      hook, slot, handle, with_response = yield(DONE, core.put_name(hook, handle, with_response))
    elseif slot <= 0 then
      hook, slot, handle, with_response = yield(DONE, (hook(slot == 0 and conn_object(handle) or nil)))
    else
      local req
      if handle then
        req = setmetatable({ handle, false, false, false, false, false }, Request)
        live[slot] = req
      else
        req = live[slot]
      end
      if with_response then
        local res = req[REQ_RES]
        if not res then
          res = setmetatable({ req[1], false }, Response)
          req[REQ_RES] = res
        end
        hook, slot, handle, with_response = yield(DONE, (hook(req, res)))
      else
        hook, slot, handle, with_response = yield(DONE, (hook(req)))
      end
    end
  end
end
require("jit").off(core.runner)
