-- SPDX-License-Identifier: BSD-2-Clause
-- gate.servers and gate.set_server: the servers of upstreams as all workers know them. The memory is
-- proxy/standing.h's.
local core = ...

local gate, C, ffi = core.parts.gate, core.parts.C, core.parts.ffi
local fail, wrong, raise = core.parts.fail, core.parts.wrong, core.parts.raise
local type, pairs, floor = type, pairs, math.floor
local OK, NONE = ffi.C.MG_OK, ffi.C.MG_NONE
local WEIGHT_MAX = 256

local out = ffi.new("struct mg_server")
local admins = { up = 0, drain = 1, down = 2 }

local function text(value)
  return ffi.string(value.at, value.len)
end

--- gate.servers(upstream)
--- The servers of an upstream of the configuration, as all workers together know them now, in the order of the
--- configuration: addresses, and those that its names stand for.
--- @return a list of tables: address ("192.0.2.7:8080"), name (as configured), state ("up" when it may be asked,
--- else why not), admin (what operators and scripts want: "up", "drain" or "down"), weight, active (requests on
--- it) and requests (so far)
--- @error when there is no such upstream
--- @example
---   for _, server in ipairs(gate.servers("app")) do
---     gate.log.info(server.address .. " is " .. server.state)
---   end
function gate.servers(upstream)
  if type(upstream) ~= "string" then wrong("gate.servers", "an upstream's name", upstream) end
  local list = {}
  while true do
    local result = C.server_at(upstream, #upstream, #list, out)
    if result == NONE then break end
    if result ~= OK then fail(result) end
    list[#list + 1] = {
      address = text(out.address), name = text(out.name), state = text(out.state), admin = text(out.admin),
      weight = out.weight, active = out.active, requests = out.requests,
    }
  end
  return list
end

local function number_of(weight)
  if weight == nil then return -1 end
  if weight == "default" then return 0 end
  if type(weight) ~= "number" or weight ~= floor(weight) or weight < 1 or weight > WEIGHT_MAX then
    wrong("gate.set_server", "weight as a number from 1 to " .. WEIGHT_MAX .. ' or "default"', weight)
  end
  return weight
end

--- gate.set_server(upstream, address, wishes)
--- What is wanted of a server, for all workers at once and beyond reloads, until it is set again (moongatectl set
--- server does the same). wishes: weight (1 to 256, or "default" for the configured one), admin ("up", "drain":
--- nothing new but from clients that stick to it, "down").
--- @return true, or nil and a message when the upstream has no server of that address now
--- @error when there is no such upstream, or for other wishes
--- @example
---   local server = gate.servers("app")[1]
---   gate.set_server("app", server.address, { weight = 10 })
---   gate.set_server("app", server.address, { admin = "drain" })
---   gate.set_server("app", server.address, { admin = "up", weight = "default" })
function gate.set_server(upstream, address, wishes)
  if type(upstream) ~= "string" then wrong("gate.set_server", "an upstream's name", upstream) end
  if type(address) ~= "string" then wrong("gate.set_server", "a server's address", address) end
  if type(wishes) ~= "table" then wrong("gate.set_server", "a table of wishes", wishes) end
  for name in pairs(wishes) do
    if name ~= "weight" and name ~= "admin" then
      wrong("gate.set_server", "weight and admin in the table", name)
    end
  end
  local admin = wishes.admin == nil and -1 or admins[wishes.admin]
  if not admin then wrong("gate.set_server", 'admin as "up", "drain" or "down"', wishes.admin) end
  local result = C.server_set(upstream, #upstream, address, #address, admin, number_of(wishes.weight))
  if result == OK then return true end
  if result ~= NONE then fail(result) end
  return nil, 'upstream "' .. upstream .. '" has no server "' .. address .. '"'
end
