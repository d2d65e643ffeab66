-- SPDX-License-Identifier: BSD-2-Clause
-- What names resolve to in a test, for lua/test.lua. Blocks of --- are moongate-lua(7).
local rig = ...

local test, misuse, show, sorted_keys, check_keys = rig.test, rig.misuse, rig.show, rig.sorted_keys, rig.check_keys
local concat = table.concat

local keys = { ttl = true, delay = true, fail = true }
-- Words for what gate.resolve says.
local failures = { ["no name"] = "no such name", ["no address"] = "the name has no address",
  timeout = "no resolver answered in time", unreachable = "the resolvers cannot be reached or refuse to answer",
  server = "the resolvers failed" }

--- test.name(name, answer)
--- Says what gate.resolve finds for a name: an address, a list of addresses, or a table with some of addresses in its
--- list, ttl (seconds, 60), delay (seconds until the answer comes) and fail: "no name", "no address", "timeout",
--- "unreachable" or "server". Said again, it holds for who asks when the time of the answer before is over. A name of
--- which nothing is said does not exist. Where gate.fetch or a route hook names a server, test.upstream("NAME:PORT",
--- ...) is what answers, whatever the name resolves to.
--- @example
---   test.name("db.example", { "192.0.2.1", "2001:db8::1", ttl = 30 })
---   test.name("gone.example", { fail = "timeout", delay = 5 })
function test.name(name, answer)
  if type(answer) == "string" then answer = { answer } end
  if type(name) ~= "string" or type(answer) ~= "table" then misuse("test.name takes a name and what it resolves to") end
  local list, options = {}, {}
  for key, value in pairs(answer) do
    if type(key) == "number" then list[key] = value else options[key] = value end
  end
  check_keys(options, keys, 'the answer for "' .. name .. '"')
  if options.fail and not failures[options.fail] then
    misuse('name "' .. name .. '": fail = ' .. show(options.fail) .. ", expected one of " ..
      concat(sorted_keys(failures), ", "))
  end
  local ok, why = rig.pretend(name:lower(), concat(list, " "), options.ttl or 60, options.delay or 0,
    failures[options.fail])
  if not ok then misuse('name "' .. name .. '": ' .. why) end
end
