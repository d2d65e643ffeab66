-- SPDX-License-Identifier: BSD-2-Clause
-- Tests of demo.lua: moongate --test demo_test.lua
local test = require "moongate.test"

test("a page", function()
  local answer = test.script("demo.lua"):get("/")
  test.equal(answer.status, 200)
  test.equal(answer.headers["content-type"], "text/html; charset=utf-8")
  test.equal(answer.headers["x-origin"], "origin")
  test.matches(answer.body, "Through the gate")
  test.equal(answer.headers["content-length"], tostring(#answer.body))
end)

test("the fields of a request as text and as JSON", function()
  local web = test.script("demo.lua")
  local answer = web:get("/headers?x", { ["X-One"] = "1" })
  test.matches(answer.body, "^GET /headers%?x\n")
  test.matches(answer.body, "\nX-One: 1\n")
  answer = web:get("/headers", { accept = "application/json", ["X-Two"] = 'quote " and \\ and\ttab' })
  test.equal(answer.headers["content-type"], "application/json")
  test.matches(answer.body, [=[["X-Two", "quote \u0022 and \u005c and\u0009tab"]]=])
end)

test("it answers after a while", function()
  local answer = test.script("demo.lua"):get("/slow?seconds=2")
  test.truthy(answer.waits)
  test.advance(1.9)
  test.equal(answer.status, nil)
  test.advance(0.1)
  test.equal(answer.status, 200)
  test.equal(answer.body, "after 2 s\n")
end)

test("nobody makes it wait for ever", function()
  local web = test.script("demo.lua")
  for target, seconds in pairs {
    ["/slow?seconds=1e9"] = 30, ["/slow?seconds=-5"] = 0, ["/slow?seconds=x"] = 1, ["/slow"] = 1,
  } do
    local answer = web:get(target)
    test.advance(math.max(seconds, 0.001))
    test.equal(answer.status, 200, target)
  end
end)

test("a client that goes away meanwhile leaves nothing behind", function()
  local answer = test.script("demo.lua"):get("/slow")
  answer:leave()
  test.advance(5)
  test.equal(answer.status, nil)
  test.equal(#test.errors(), 0)
end)

test("any status", function()
  local web = test.script("demo.lua")
  test.equal(web:get("/status/503").status, 503)
  test.equal(web:get("/status/503").body, "status 503\n")
  test.equal(web:get("/status/204").body, "")
  test.equal(web:get("/status/304").status, 304)
  test.equal(web:get("/status/199").status, 404)
  test.equal(web:get("/status/999").status, 404)
  test.equal(web:get("/status/20").status, 404)
end)

test("what is not there is 404", function()
  local answer = test.script("demo.lua"):get("/" .. ("x"):rep(1000))
  test.equal(answer.status, 404)
  test.truthy(#answer.body < 300, "a long path is cut")
end)

test("it says its name, and what to try only in the first place", function()
  test.equal(test.script("demo.lua", { name = "canary" }):get("/").headers["x-origin"], "canary")
  test.falsy(test.logged("moongate listens"))
  test.script("demo.lua")
  test.truthy(test.logged("moongate listens"))
end)
