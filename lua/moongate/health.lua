-- SPDX-License-Identifier: BSD-2-Clause
-- gate.health: functions that check servers (`health script NAME`). When they are called, and what follows from what they
-- return, is src/proxy/check.c's; that they run, src/script/health.c's.
local core = ...

local gate, C, ffi = core.parts.gate, core.parts.C, core.parts.ffi
local fail, wrong, raise = core.parts.fail, core.parts.wrong, core.raise
local type, tostring, error = type, tostring, error
local getinfo = debug.getinfo
local OK, NONE = ffi.C.MG_OK, ffi.C.MG_NONE

local functions, places = {}, {}

local function place_of(fn)
  local info = getinfo(fn, "S")
  return info.short_src .. ":" .. info.linedefined
end

--- gate.health(name, fn)
--- Made at the top of a script: the function checks servers of the upstreams that have "health script NAME". It is called
--- with a table: address ("192.0.2.7:8080"), name (as configured), upstream and timeout (seconds that are left to it). It
--- may wait, as with gate.tcp or gate.fetch, and what it has opened ends with it. It returns true when the server is well,
--- else false and why, which the log and moongatectl show upstreams say. An error counts as a check that failed, as does
--- one that took longer than the time-out of the check (or script_time_limit). One worker calls it for all. Only true is
--- well: a function that returns nothing finds every server ill.
--- @error when another function has that name already
--- @example
---   gate.health("ping", function(server)
---     local sock, why = gate.tcp.connect(server.address, { timeout = 1 })
---     if not sock then return false, why end
---     sock:send("PING\r\n")
---     local answer, failed = sock:receive_until("\r\n")
---     return answer == "+PONG", failed or "it does not answer PING"
---   end)
function gate.health(name, fn)
  if type(name) ~= "string" or name == "" then wrong("gate.health", "a name", name) end
  if type(fn) ~= "function" then wrong("gate.health", "a function", fn) end
  if not core.loading then raise("functions that check servers are made while a script loads, not in a hook") end
  local result = C.health_declare(name, #name)
  if result == NONE then
    -- A script of two frontends is loaded twice.
    if places[name] == place_of(fn) then return end
    raise('there is another function to check servers "' .. name .. '" already, made in ' .. places[name])
  end
  if result ~= OK then fail(result) end
  functions[name], places[name] = fn, place_of(fn)
end

-- Called by C: the job of that number is to check the server.
function core.health_begin(job, name, address, server, upstream, timeout)
  core.jobs[job] = function()
    local good, why = functions[name] { address = address, name = server, upstream = upstream, timeout = timeout }
    if good ~= nil and type(good) ~= "boolean" then
      error(places[name] .. ": the health function returned a " .. type(good) .. ": expected true, or false and why", 0)
    end
    why = why == nil and "its health function says so" or tostring(why)
    local result = C.health_result(good and 1 or 0, why, #why)
    if result ~= OK then fail(result) end
  end
end
