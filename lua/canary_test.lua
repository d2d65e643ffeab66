-- SPDX-License-Identifier: BSD-2-Clause
-- Tests of canary.lua: moongate --test canary_test.lua
local test = require "moongate.test"

local function world(settings)
  settings.choices = settings.choices or "stable=70 next=30"
  test.upstream("stable", {})
  test.upstream("next", {})
  return test.script("canary.lua", settings)
end

local function count(web, wanted, request)
  local n = 0
  for _ = 1, 300 do
    if web:request(request or {}).upstream == wanted then n = n + 1 end
  end
  return n
end

test("new clients are parted by shares", function()
  local n = count(world {}, "next")
  test.truthy(n > 45 and n < 140, "90 of 300, more or less: " .. n)
end)

test("a client stays where it was sent first", function()
  local web = world {}
  local first = web:get("/")
  local cookie = first.headers["set-cookie"]
  test.matches(cookie, "^choice=" .. first.upstream .. "; ")
  test.matches(cookie, "Max%-Age=2592000")
  test.matches(cookie, "HttpOnly")
  test.equal(first.forwarded.headers["x-choice"], first.upstream)
  test.equal(count(web, "next", { headers = { cookie = "choice=next" } }), 300)
  local again = web:get("/", { cookie = "choice=next" })
  test.equal(again.headers["set-cookie"], nil)
end)

test("a choice that is not offered any more is drawn anew", function()
  local answer = world {}:get("/", { cookie = "choice=gone" })
  test.matches(answer.headers["set-cookie"], "^choice=" .. answer.upstream)
end)

test("a share of nothing takes nobody new and keeps those who are there", function()
  local web = world { choices = "stable=1 next=0" }
  test.equal(count(web, "next"), 0)
  test.equal(web:get("/", { cookie = "choice=next" }).upstream, "next")
end)

test("a field chooses for once, and only what is offered", function()
  local web = world { force = "x-use", choices = "stable=1 next=0" }
  local answer = web:get("/", { ["x-use"] = "next" })
  test.equal(answer.upstream, "next")
  test.equal(answer.headers["set-cookie"], nil)
  test.equal(web:get("/", { ["x-use"] = "127.0.0.1:22" }).upstream, "stable")
end)

test("other paths go where the routes say, and no client says what it has chosen", function()
  local web = world { paths = "/shop/" }
  local answer = web:get("/", { ["x-choice"] = "next" })
  test.equal(answer.upstream, "origin")
  test.equal(answer.headers["set-cookie"], nil)
  test.equal(answer.forwarded.headers["x-choice"], nil)
  test.truthy(web:get("/shop/1").upstream ~= "origin")
end)

test("settings that make no sense are told", function()
  test.error(function() test.script("canary.lua") end, "is required")
  test.error(function() world { choices = "stable" } end, "expected NAME=SHARE")
  test.error(function() world { choices = "stable=1 stable=2" } end, "twice")
  test.error(function() world { choices = "stable=0" } end, "nothing")
  test.error(function() world { cookie = "a b" } end, "cookie")
end)
