-- SPDX-License-Identifier: BSD-2-Clause
-- gate.resolve: addresses and services of names. Who asks, and what is remembered, is src/net/resolver.c's.
local core = ...

local gate, C, ffi = core.parts.gate, core.parts.C, core.parts.ffi
local fail, wrong = core.parts.fail, core.parts.wrong
local park, opened = core.park, core.opened
local type, ffi_string = type, ffi.string
local OK, AGAIN, SERVICES = ffi.C.MG_OK, ffi.C.MG_WAIT, ffi.C.MG_SERVICES
local c_new, c_result, c_address, c_close = C.resolve_new, C.resolve_result, C.resolve_address, C.resolve_close
local c_service = C.resolve_service
local out, out_number, out_resolved = ffi.new("struct mg_text"), ffi.new("double[1]"), ffi.new("struct mg_resolved")
local out_service = ffi.new("struct mg_service")

local TIMEOUT = 30

-- What was begun and is not over, with the table that says who closes it at its end.
local owners = {}
local function close(id)
  local owner = owners[id]
  if not owner then return end
  owners[id], owner[id] = nil, nil
  c_close(id)
end

local function address(id, at)
  c_address(id, at, out)
  return ffi_string(out.at, out.len)
end

local function service(id, at)
  c_service(id, at, out_service)
  local one = { priority = out_service.priority, weight = out_service.weight, port = out_service.port,
    target = ffi_string(out_service.target.at, out_service.target.len) }
  for n = 1, out_service.count do one[n] = address(id, out_service.first + n - 1) end
  return one
end

-- Calls a resolve hook (src/script/guide.c) with what gate.resolve takes. Of what it returns C reads two values.
function core.put_name(hook, name, kind)
  local options = {}
  if kind == SERVICES then
    options.type = "SRV"
  elseif kind ~= 0 then
    options.family = kind
  end
  return hook(name, options)
end

--- gate.resolve(name, options)
--- Asks for the addresses of a name, as the directive resolver says, and remembers the answer as long as it holds
--- (resolver_cache). An IP address is its own answer. options is a table, all of it may be left out: family (4 or 6;
--- else both), timeout (seconds, 30; resolver_timeout is what counts where it is shorter), allowed (true: only addresses
--- that the directive route_allow lets in), type ("SRV": asks for services, RFC 2782, of a name such as
--- "_http._tcp.app.internal"; family does not count then). Who connects by himself to what a name from a request stands for wants the
--- last one: such a name can be made to stand for any address, those of this machine included.
--- @where every hook, timers, tasks
--- @yields when the answer is not known
--- @return a list of addresses as strings, the best first, with the fields ttl (seconds that it still holds) and, when
--- it is past its time and the resolvers do not answer, stale = true; with type = "SRV" each of the list is a table with
--- priority, weight, port, target (a name in lower case) and the addresses of the target as strings from [1] on, perhaps
--- none, in the order of their priorities; or nil and why: "no such name", "the name has no
--- address", "the name has no services", "a script refuses it" and "a script that was asked for it failed" (hooks.resolve),
--- "this is no host name", "timeout" (of options), "no resolver answered in time" (resolver_timeout), "the
--- resolvers cannot be reached or refuse to answer", "the resolvers failed", "a resolver sent nonsense", "too many names
--- are being resolved" (resolver_queries), "route_allow lets none of its addresses in"
--- @example
---   local found, why = gate.resolve("localhost", { family = 4, timeout = 0.5 })
---   if not found then gate.log.warn("no address:", why) else gate.log.info(found[1], found.ttl) end
function gate.resolve(name, options)
  options = options or {}
  if type(name) ~= "string" then wrong("gate.resolve", "a name", name) end
  if type(options) ~= "table" then wrong("gate.resolve", "a table of options", options) end
  local family, timeout = options.family, options.timeout or TIMEOUT
  if options.type ~= nil and options.type ~= "SRV" then wrong("gate.resolve", "type \"SRV\"", options.type) end
  if family ~= nil and family ~= 4 and family ~= 6 then wrong("gate.resolve", "family 4 or 6", family) end
  if type(timeout) ~= "number" then wrong("gate.resolve", "a timeout in seconds", timeout) end
  local deadline = gate.now() + timeout
  local services = options.type == "SRV"
  local result = c_new(name, #name, services and SERVICES or family or 0, options.allowed and 1 or 0, out_number)
  if result ~= OK then fail(result, "name") end
  local id = out_number[0]
  owners[id] = opened(id, close)

  while true do
    result = c_result(id, out_resolved)
    if result ~= AGAIN then break end
    local left = deadline - gate.now()
    if left <= 0 then
      close(id)
      return nil, "timeout"
    end
    park({}, left, "gate.resolve")
  end
  if result ~= OK then
    close(id)
    return nil, ffi_string(C.error_text())
  end
  local found = { ttl = out_resolved.ttl }
  if out_resolved.stale ~= 0 then found.stale = true end
  for at = 1, out_resolved.count do
    found[at] = services and service(id, at - 1) or address(id, at - 1)
  end
  close(id)
  return found
end
