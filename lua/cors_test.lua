-- SPDX-License-Identifier: BSD-2-Clause
-- Tests of cors.lua: moongate --test cors_test.lua
local test = require "moongate.test"

local APP = "https://app.example.org"

local function asks(web, origin, method)
  return web:request { method = "OPTIONS", target = "/", headers = {
    origin = origin, ["access-control-request-method"] = method or "PUT" } }
end

test("a page of an origin that is allowed may read, another may not", function()
  local web = test.script("cors.lua", { origins = APP, expose = "x-total" })
  local headers = web:get("/", { origin = APP }).headers
  test.equal(headers["access-control-allow-origin"], APP)
  test.equal(headers["access-control-expose-headers"], "x-total")
  test.equal(headers["access-control-allow-credentials"], nil)
  test.equal(headers.vary, "origin")
  headers = web:get("/", { origin = "https://evil.example" }).headers
  test.equal(headers["access-control-allow-origin"], nil)
  test.equal(headers.vary, "origin")
  test.equal(web:get("/").headers.vary, "origin")
end)

test("the question beforehand is answered here", function()
  local web = test.script("cors.lua", { origins = APP, methods = "GET PUT", headers = "x-a x-b", credentials = "on" })
  local answer = asks(web, APP)
  test.equal(answer.status, 204)
  test.equal(answer.upstream, nil)
  test.equal(answer.headers["access-control-allow-origin"], APP)
  test.equal(answer.headers["access-control-allow-methods"], "GET, PUT")
  test.equal(answer.headers["access-control-allow-headers"], "x-a, x-b")
  test.equal(answer.headers["access-control-allow-credentials"], "true")
  test.equal(answer.headers["access-control-max-age"], "600")
  answer = asks(web, "https://evil.example")
  test.equal(answer.status, 204)
  test.equal(answer.headers["access-control-allow-origin"], nil)
  test.equal(answer.headers["access-control-allow-methods"], nil)
end)

test("other OPTIONS requests go to the server", function()
  local web = test.script("cors.lua", { origins = APP })
  test.equal(web:request { method = "OPTIONS", target = "/" }.upstream, "origin")
  test.equal(web:request { method = "OPTIONS", target = "/", headers = { origin = APP } }.upstream, "origin")
end)

test("names below one, and nothing that only looks so", function()
  local web = test.script("cors.lua", { origins = "https://*.example.com" })
  local function allowed(origin) return web:get("/", { origin = origin }).headers["access-control-allow-origin"] end
  test.equal(allowed("https://a.example.com"), "https://a.example.com")
  test.equal(allowed("https://a.b.example.com"), "https://a.b.example.com")
  for _, origin in ipairs { "https://example.com", "http://a.example.com", "https://.example.com",
    "https://evilexample.com", "https://evil.org/a.example.com", "https://a.example.com.evil.org", "null" } do
    test.equal(allowed(origin), nil, origin)
  end
end)

test("any origin, without cookies", function()
  local headers = test.script("cors.lua", { origins = "*" }):get("/", { origin = "https://x.y" }).headers
  test.equal(headers["access-control-allow-origin"], "*")
  test.equal(headers.vary, nil)
  test.error(function() test.script("cors.lua", { origins = "*", credentials = "on" }) end, "not for origins")
end)

test("what the server says of it is taken out, errors say it", function()
  local web = test.script("cors.lua", { origins = APP })
  test.upstream("origin", { headers = { ["Access-Control-Allow-Origin"] = "*", Vary = "accept" } }, { fail = "connect" })
  local headers = web:get("/", { origin = APP }).headers
  test.equal(headers["access-control-allow-origin"], APP)
  test.equal(headers.vary, "accept, origin")
  local answer = web:get("/", { origin = APP })
  test.equal(answer.status, 502)
  test.equal(answer.headers["access-control-allow-origin"], APP)
end)

test("settings that make no sense are told", function()
  test.error(function() test.script("cors.lua") end, "is required")
  test.error(function() test.script("cors.lua", { origins = "https://a/b" }) end, "without a path")
  test.error(function() test.script("cors.lua", { origins = "example.org" }) end, "is none")
end)
