-- SPDX-License-Identifier: BSD-2-Clause
-- gate.fetch: requests that scripts make. What goes over the wire is src/script/fetch.c's and the exchange's.
local core = ...

local gate, C, ffi = core.parts.gate, core.parts.C, core.parts.ffi
local fail, wrong, raise = core.parts.fail, core.parts.wrong, core.raise
local park, opened = core.park, core.opened
local type, pairs, ipairs, tostring, setmetatable = type, pairs, ipairs, tostring, setmetatable
local concat, ffi_string = table.concat, ffi.string
local OK, NONE, AGAIN = ffi.C.MG_OK, ffi.C.MG_NONE, ffi.C.MG_WAIT
local c_new, c_field, c_start, c_status = C.fetch_new, C.fetch_field, C.fetch_start, C.fetch_status
local c_header, c_read, c_close = C.fetch_header, C.fetch_read, C.fetch_close
local out, out_name = ffi.new("struct mg_text"), ffi.new("struct mg_text")
local out_number, out_position = ffi.new("double[1]"), ffi.new("uint32_t[1]")

local TIMEOUT, MAX_BODY = 30, 1048576

-- Where to connect, what to ask for, and the host: of "http://host:port/path?query", or "/path?query" for an
-- upstream.
local function parse(url, upstream)
  if type(url) ~= "string" then wrong("gate.fetch", "a URL", url) end
  local scheme, authority, rest = url:match("^(%a[%w+.-]*)://([^/?#]*)(.*)$")
  if not scheme then
    if upstream and url:sub(1, 1) == "/" then return upstream, url:match("^[^#]*"), upstream end
    raise('gate.fetch: expected "http://host/path", or "/path" and an upstream, got "' .. url:sub(1, 200) .. '"')
  end
  scheme = scheme:lower()
  if scheme ~= "http" and scheme ~= "https" then return nil, nil, nil, scheme .. " is not offered" end
  if authority == "" or authority:find("@", 1, true) then
    raise('gate.fetch: expected host[:port] in the URL, got "' .. authority:sub(1, 200) .. '"')
  end
  local target = rest:match("^[^#]*")
  if target:sub(1, 1) ~= "/" then target = "/" .. target end
  if upstream then return upstream, target, authority end
  local to = authority:match(":%d+$") and authority or authority .. (scheme == "https" and ":443" or ":80")
  local host = to:match("^%[(.*)%]:%d+$") or to:match("^(.*):%d+$")
  -- A label of digits alone at the end is a number that wants to be an address.
  if not gate.network(host) and (host:find("[^%w._-]") or host:find("^%d+%.?$") or host:find("%.%d+%.?$")) then
    return nil, nil, nil, "this is no host name"
  end
  return (scheme == "https" and "https://" or "") .. to, target, authority
end

-- Fetches that were begun, with the table that says who closes them at its end.
local owners = {}
local function close(id)
  local owner = owners[id]
  if not owner then return end
  owners[id], owner[id] = nil, nil
  c_close(id)
end

local function put_field(id, name, value)
  if type(value) == "table" then
    for _, one in ipairs(value) do put_field(id, name, one) end
    return
  end
  if type(name) ~= "string" then wrong("a header field's name", "a string", name) end
  value = tostring(value)
  local result = c_field(id, name, #name, value, #value)
  if result ~= OK then
    close(id)
    fail(result, "fetch")
  end
end

-- Calls until it need not wait: what came, or nil and why.
local function await(call, id, target, deadline)
  while true do
    local result = call(id, target)
    if result ~= AGAIN then
      if result == OK then return true end
      if result == NONE then return false end
      close(id)
      return nil, ffi_string(C.error_text())
    end
    local left = deadline - gate.now()
    if left <= 0 then
      close(id)
      return nil, "timeout"
    end
    park({}, left, "gate.fetch")
  end
end

local response_methods = {}
local Response = { __index = response_methods, __metatable = "fetched" }

local function read_headers(id)
  local headers, seen = {}, {}
  out_position[0] = 0
  while c_header(id, out_position, out_name, out) == OK do
    local name, value = ffi_string(out_name.at, out_name.len):lower(), ffi_string(out.at, out.len)
    local list = seen[name]
    if list then list[#list + 1] = value else seen[name] = { value } end
  end
  for name, list in pairs(seen) do headers[name] = concat(list, ", ") end
  return headers, seen
end

--- gate.fetch(url, options)
--- Asks another server: "http://192.0.2.1:8080/path?query", "https://name.example/path", or with an upstream "/path".
--- Over https:// the server must show a certificate for its name or address that an authority of fetch_ca (of the
--- system) has signed, and may choose HTTP/2; other authorities, pins and certificates are an upstream's affair (tls).
--- It goes through the pools and limits of the upstream (an address or a name has their defaults); an idempotent request
--- may be sent again, as `retry` allows, and to the next address of a name when one cannot be connected to. Which
--- addresses a name may stand for the directive route_allow says: those of this machine and of private networks only
--- when it names them. options is a
--- table, all of it may be left out: method (GET, with a body POST), headers (a table as for req:respond()),
--- body (a
--- string), upstream (a name), timeout (seconds for all of it, 30), max_body (bytes of the response's body,
--- 1 MiB), stream
--- (true: the body is read with fetched:chunks()).
--- What a fetch has begun ends with the hook, timer or task that began it.
--- @where every hook, timers, tasks
--- @yields
--- @return a table with status, headers (by name in lower case, repeated ones joined by commas; fields[name]
--- has them
--- as a list) and body; or nil and why: "timeout", "too large", or a word of the log variable $termination ("upstream_name": the name could not be resolved;
--- "upstream_tls": its
--- certificate was refused, or the handshake failed otherwise; "upstream_denied": it stands for no address that route_allow lets in)
--- @example
---   local answer, why = gate.fetch("http://127.0.0.1:1/check", { timeout = 0.5, headers = { accept = "text/plain" } })
---   if not answer then gate.log.warn("no answer:", why) end
function gate.fetch(url, options)
  options = options or {}
  if type(options) ~= "table" then wrong("gate.fetch", "a table of options", options) end
  local body, timeout, most = options.body, options.timeout or TIMEOUT, options.max_body or MAX_BODY
  if body ~= nil and type(body) ~= "string" then wrong("gate.fetch", "a body as a string", body) end
  if type(timeout) ~= "number" then wrong("gate.fetch", "a timeout in seconds", timeout) end
  if type(most) ~= "number" then wrong("gate.fetch", "max_body in bytes", most) end
  local deadline = gate.now() + timeout
  local to, target, host, why = parse(url, options.upstream)
  if not to then return nil, why end
  local method = options.method or (body and "POST" or "GET")
  local result = c_new(method, #method, target, #target, to, #to, out_number)
  if result ~= OK then fail(result, "fetch") end
  local id = out_number[0]
  owners[id] = opened(id, close)
  put_field(id, "host", host)
  for name, value in pairs(options.headers or {}) do put_field(id, name, value) end
  result = c_start(id, body, body and #body or 0)
  if result ~= OK then
    close(id)
    fail(result, "fetch")
  end

  local ok
  ok, why = await(c_status, id, out_number, deadline)
  if not ok then return nil, why end
  local response = setmetatable({ status = out_number[0], id = id, deadline = deadline }, Response)
  response.headers, response.fields = read_headers(id)
  if options.stream then return response end
  local parts, size = {}, 0
  while true do
    local more
    more, why = await(c_read, id, out, deadline)
    if more == nil then return nil, why end
    if not more then break end
    size = size + out.len
    if size > most then
      close(id)
      return nil, "too large"
    end
    parts[#parts + 1] = ffi_string(out.at, out.len)
  end
  close(id)
  response.body = concat(parts)
  return response
end

--- fetched:chunks()
--- Goes through the body of a response that was fetched with stream = true, in pieces of any size, as they
--- come; the sender
--- is held back meanwhile. Time runs from the fetch's beginning.
--- @yields
--- @error when the body breaks off, or time runs out
--- @example
---   local answer = gate.fetch("http://127.0.0.1:1/large", { stream = true })
---   if answer then for chunk in answer:chunks() do gate.log.debug(#chunk) end end
function response_methods.chunks(t)
  return function()
    local more, why = await(c_read, t.id, out, t.deadline)
    if more == nil then raise("the body broke off: " .. why) end
    if more then
      local text = ffi_string(out.at, out.len)
      return text
    end
    close(t.id)
  end
end

--- fetched:close()
--- Lets go of a response that was fetched with stream = true before its end.
function response_methods.close(t)
  close(t.id)
end
