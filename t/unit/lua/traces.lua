-- SPDX-License-Identifier: BSD-2-Clause
-- Calls that hooks make for each request stay on compiled traces: each is called in a loop, which must become a trace
-- without an attempt that was given up. Runs with script_unsafe on, for jit.
--
-- Two kinds of attempts are nobody's fault: the counters of loops share few slots by their addresses, so that now and then
-- recording begins with the outer one of two nested loops (LJ_TRERR_LINNER), or in the last turn of one
-- (LJ_TRERR_LLEAVE). Such an attempt counts as given up unless a trace is completed behind it.
local gate, jit = require "moongate", require "jit"

local dict = gate.shared "limits"
local mine = gate.shared("limits", { generation = true })
local counter = gate.counter("trace_total", "", { "a", "b" })
local spread = gate.histogram("trace_seconds")
local level = gate.gauge("trace_level")
dict:set("key", "value")
mine:set("key", 1)

local UNLUCKY = { [8] = "leaving loop in root trace", [9] = "inner loop in root trace" }
local started, stopped, given_up, unlucky
local function watch(what, _, _, _, code)
  if what == "start" then started = started + 1 end
  if what == "stop" then stopped, unlucky = stopped + 1, {} end
  if what == "abort" and UNLUCKY[code] then
    unlucky[#unlucky + 1] = UNLUCKY[code]
  elseif what == "abort" then
    given_up[#given_up + 1] = tostring(code)
  end
end

local calls = {
  base64 = function() return gate.base64.decode(gate.base64.encode("moon")) end,
  base64url = function() return gate.base64.decode_url(gate.base64.encode_url("moon")) end,
  hex = function() return gate.hex.decode(gate.hex.encode("moon")) end,
  digest = function() return gate.sha256("moon") end,
  hmac = function() return gate.hmac("sha256", "key", "moon") end,
  siphash = function() return gate.siphash("0123456789abcdef", "moon") end,
  equal = function() return gate.equal("moon", "moon") end,
  random = function() return gate.random.bytes(16), gate.random.integer(1, 6) end,
  id = function() return gate.random.hex() end,
  now = function() return gate.time.now() + gate.time.monotonic() end,
  date = function() return gate.time.parse_http(gate.time.http(784111777)) end,
  rfc3339 = function() return gate.time.parse_rfc3339(gate.time.rfc3339(784111777, 3)) end,
  escape = function() return gate.query.unescape(gate.query.escape("a b")) end,
  get = function() return dict:get("key") end,
  set = function() return dict:set("key", "other", 5) end,
  replace = function() return dict:replace("key", "other") end,
  cas = function() return dict:cas("key", "other", "other") end,
  incr = function() return dict:incr("n") end,
  expire = function() return dict:expire("key", 5) end,
  ttl = function() return dict:ttl("key") end,
  list = function() return dict:rpush("list", "x"), dict:lpop("list") end,
  namespace = function() return mine:get("key") end,
  counter = function() counter:inc(1, "a", 5) end,
  histogram = function() spread:observe(0.2) end,
  gauge = function() level:set(3) end,
}

for name, call in pairs(calls) do
  call()
  started, stopped, given_up, unlucky = 0, 0, {}, {}
  jit.flush()
  jit.attach(watch, "trace")
  for _ = 1, 5 do
    for _ = 1, 300 do call() end
    if #unlucky == 0 then break end
  end
  jit.attach(watch)
  for _, why in ipairs(unlucky) do given_up[#given_up + 1] = why end
  assert(stopped > 0 and #given_up == 0, name .. ": " .. started .. " traces begun, " .. stopped .. " completed, given up: "
    .. table.concat(given_up, " "))
end

return {}
