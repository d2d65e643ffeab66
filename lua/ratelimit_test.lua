-- SPDX-License-Identifier: BSD-2-Clause
-- Tests of ratelimit.lua: moongate --test ratelimit_test.lua
local test = require "moongate.test"

-- How many of `count` requests get through.
local function passed(web, count, request)
  local n = 0
  for _ = 1, count do
    local spec = {}
    for key, value in pairs(request or {}) do spec[key] = value end
    if web:request(spec).status == 200 then n = n + 1 end
  end
  return n
end

test("a burst passes, what is more is told when to come again", function()
  local web = test.script("ratelimit.lua", { rate = 2, burst = 3 })
  test.equal(passed(web, 3), 3)
  local answer = web:get("/")
  test.equal(answer.status, 429)
  test.equal(answer.headers["retry-after"], "1")
  test.equal(answer.body, "too many requests\n")
  test.equal(answer.upstream, nil)
end)

test("time gives back what the rate says and no more than the burst", function()
  local web = test.script("ratelimit.lua", { rate = 2, burst = 3 })
  test.equal(passed(web, 5), 3)
  test.advance(0.4)
  test.equal(passed(web, 1), 0, "0.8 of one")
  test.advance(0.2)
  test.equal(passed(web, 5), 1)
  test.advance(3600)
  test.equal(passed(web, 10), 3, "after an hour")
end)

test("a slow rate tells a long wait", function()
  local web = test.script("ratelimit.lua", { rate = 0.1 })
  test.equal(passed(web, 1), 1)
  test.equal(web:get("/").headers["retry-after"], "10")
  test.advance(9)
  test.equal(web:get("/").headers["retry-after"], "1")
  test.advance(1)
  test.equal(web:get("/").status, 200)
end)

test("each address has its own, on one connection or many", function()
  local web = test.script("ratelimit.lua", { rate = 1, burst = 2 })
  local client = web:connect("192.0.2.1")
  test.equal(client:get("/").status, 200)
  test.equal(passed(web, 2, { from = "192.0.2.1" }), 1)
  test.equal(client:get("/").status, 429)
  test.equal(passed(web, 3, { from = "192.0.2.2" }), 2)
end)

test("addresses of one network count as one", function()
  local web = test.script("ratelimit.lua", { rate = 1, burst = 2, prefix4 = 24 })
  test.equal(passed(web, 1, { from = "192.0.2.1" }), 1)
  test.equal(passed(web, 1, { from = "192.0.2.200" }), 1)
  test.equal(passed(web, 1, { from = "192.0.2.3" }), 0)
  test.equal(passed(web, 1, { from = "192.0.3.1" }), 1)
  -- IPv6: /64 unless it is said otherwise, so that a client cannot walk through its own network.
  test.equal(passed(web, 1, { from = "2001:db8::1" }), 1)
  test.equal(passed(web, 1, { from = "2001:db8::ffff:1" }), 1)
  test.equal(passed(web, 1, { from = "2001:db8::2:0:0:1" }), 0)
  test.equal(passed(web, 1, { from = "2001:db8:0:1::1" }), 1)
end)

test("by a field's value, by the address without it", function()
  local web = test.script("ratelimit.lua", { rate = 1, by = "header:x-key" })
  test.equal(passed(web, 2, { headers = { ["X-Key"] = "a" } }), 1)
  test.equal(passed(web, 2, { headers = { ["x-key"] = "b" } }), 1)
  test.equal(passed(web, 2), 1)
end)

test("a field of any length and bytes is a key", function()
  local web = test.script("ratelimit.lua", { rate = 1, by = "header:x-key" })
  local long = ("k"):rep(4000)
  test.equal(passed(web, 2, { headers = { ["x-key"] = long } }), 1)
  test.equal(passed(web, 1, { headers = { ["x-key"] = long .. "l" } }), 1, "another one as long")
  test.equal(passed(web, 2, { headers = { ["x-key"] = "\200\201" } }), 1)
  -- A value that looks like the key of an address is not one.
  test.equal(passed(web, 1, { headers = { ["x-key"] = "192.0.2.1/32" } }), 1)
  test.equal(passed(web, 1, { from = "192.0.2.1" }), 1)
end)

test("only the paths that are named, and nobody who is excepted", function()
  local web = test.script("ratelimit.lua", { rate = 1, paths = "/api/ /login", except = "198.51.100.0/24" })
  test.equal(passed(web, 3, { target = "/" }), 3)
  test.equal(passed(web, 3, { target = "/api/x" }), 1)
  test.equal(passed(web, 3, { target = "/%61pi/x" }), 0, "the same path, written otherwise")
  test.equal(passed(web, 3, { target = "/api/", from = "198.51.100.7" }), 3)
end)

test("scripts share their buckets when they share the zone", function()
  local a = test.script("ratelimit.lua", { rate = 1, burst = 2, zone = "z" })
  local b = test.script("ratelimit.lua", { rate = 1, burst = 2, zone = "z" })
  local c = test.script("ratelimit.lua", { rate = 1, burst = 2, zone = "other" })
  local d = test.script("ratelimit.lua", { rate = 1, burst = 2, zone = "z", dict = "more" })
  test.equal(passed(a, 1) + passed(b, 5), 2)
  test.equal(passed(c, 5), 2)
  test.equal(passed(d, 5), 2)
end)

test("the status may be another", function()
  local web = test.script("ratelimit.lua", { rate = 1, status = 503 })
  passed(web, 1)
  test.equal(web:get("/").status, 503)
end)

test("wrong settings are refused when it loads", function()
  local function refused(settings, why)
    test.error(function() test.script("ratelimit.lua", settings) end, why)
  end
  refused({}, "the setting rate=NUMBER")
  refused({ rate = "x" }, "expected a number")
  refused({ rate = 0 }, "rate must be above 0")
  refused({ rate = 1, burst = 0.5 }, "burst must be at least 1")
  refused({ rate = 1, by = "cookie" }, "expected address or header:NAME")
  refused({ rate = 1, prefix4 = 33 }, "0 to 32")
  refused({ rate = 1, prefix6 = 129 }, "0 to 128")
  refused({ rate = 1, except = "nobody" }, "nobody")
  refused({ rate = 1, brust = 2 }, 'unknown setting "brust"')
end)
