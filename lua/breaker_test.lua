-- SPDX-License-Identifier: BSD-2-Clause
-- Tests of breaker.lua: moongate --test breaker_test.lua
local test = require "moongate.test"

local function world(settings)
  settings.upstream = "app"
  settings.failures = settings.failures or 3
  return test.script("breaker.lua", settings, { shared = { breakers = "1m" } })
end

local function ask(web, count)
  local got = {}
  for i = 1, count or 1 do
    local answer = web:get("/")
    got[i] = answer.status .. (answer.upstream and " " .. answer.upstream or "")
  end
  return table.concat(got, ", ")
end

test("an upstream that fails too often is left alone, and tried later", function()
  local web = world { open = 15 }
  local app = test.upstream("app", { status = 500 })
  test.equal(ask(web, 5), "500 app, 500 app, 500 app, 503, 503")
  test.equal(web:get("/").headers["retry-after"], "15")
  test.advance(15.1)
  test.equal(ask(web, 3), "500 app, 503, 503")
  test.equal(#app.requests, 4)
  test.advance(15.1)
  test.upstream("app", { status = 200 })
  test.equal(ask(web, 3), "200 app, 200 app, 200 app")
end)

test("one request at a time tries", function()
  local web = world {}
  test.upstream("app", { status = 500 })
  ask(web, 3)
  test.advance(16)
  test.upstream("app", { delay = 1 })
  local trial = web:get("/")
  test.equal(ask(web, 2), "503, 503")
  test.advance(1.5)
  test.equal(trial.status, 200)
  local after = web:get("/")
  test.advance(1.5)
  test.equal(after.status, 200)
end)

test("another upstream serves meanwhile", function()
  local web = world { instead = "reserve" }
  test.upstream("app", { fail = "reset" })
  test.upstream("reserve", {})
  web:request { method = "POST", target = "/" }
  test.matches(ask(web, 6), "200 reserve, 200 reserve, 200 reserve$")
end)

test("failures that are far apart do not count together", function()
  local web = world { window = 10 }
  test.upstream("app", { status = 500 })
  ask(web, 2)
  test.advance(11)
  test.equal(ask(web, 2), "500 app, 500 app")
end)

test("other answers are none, unless they are named", function()
  test.upstream("app", { status = 404 })
  test.equal(ask(world {}, 5), "404 app, 404 app, 404 app, 404 app, 404 app")
end)

test("a status that is named counts", function()
  test.upstream("app", { status = 404 })
  test.equal(ask(world { statuses = "404" }, 4), "404 app, 404 app, 404 app, 503")
end)

test("settings that are missing are told", function()
  test.error(function() test.script("breaker.lua", {}, { shared = { breakers = "1m" } }) end, "is required")
end)
