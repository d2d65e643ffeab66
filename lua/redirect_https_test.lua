-- SPDX-License-Identifier: BSD-2-Clause
-- Tests of redirect_https.lua: moongate --test redirect_https_test.lua
local test = require "moongate.test"

local function location(web, request)
  local answer = web:request(request)
  test.equal(answer.upstream, nil, "nothing is forwarded")
  return answer.headers.location
end

test("a request without TLS is sent to the same place with it", function()
  local web = test.script("redirect_https.lua")
  local answer = web:get("/a/b?c=d&e=%20")
  test.equal(answer.status, 308)
  test.equal(answer.headers.location, "https://www.example.org/a/b?c=d&e=%20")
  test.equal(web:request { method = "POST", target = "/form", body = "a=1" }.status, 308)
end)

test("the host is the one that was asked for, without its port", function()
  local web = test.script("redirect_https.lua")
  test.equal(location(web, { headers = { host = "Shop.Example.ORG:8080" } }), "https://shop.example.org/")
  test.equal(location(web, { headers = { host = "[2001:db8::1]:80" } }), "https://[2001:db8::1]/")
end)

test("host, port and status come from the settings", function()
  local web = test.script("redirect_https.lua", { host = "secure.example.org", port = 8443, status = 302 })
  local answer = web:get("/x", { host = "evil.example.net" })
  test.equal(answer.status, 302)
  test.equal(answer.headers.location, "https://secure.example.org:8443/x")
  test.equal(location(test.script("redirect_https.lua", { port = 443 }), {}), "https://www.example.org/")
end)

test("the path goes on as it was written", function()
  local web = test.script("redirect_https.lua")
  test.equal(location(web, "GET /a%2fb/%41?x=%0d%0aset-cookie:1"),
    "https://www.example.org/a%2fb/%41?x=%0d%0aset-cookie:1")
  test.equal(location(web, "GET //evil.example.net/x"), "https://www.example.org//evil.example.net/x")
end)

test("excepted paths are let through", function()
  local web = test.script("redirect_https.lua", { except = "/.well-known/acme-challenge/ /health" })
  test.equal(web:get("/.well-known/acme-challenge/token").upstream, "origin")
  test.equal(web:get("/health").upstream, "origin")
  test.equal(web:get("/.well-known/acme-challenge/../x").status, 308)
end)

test("without a host there is no place to go", function()
  local web = test.script("redirect_https.lua")
  local answer = web:request { version = "1.0", headers = { host = false } }
  test.equal(answer.status, 400)
  test.equal(answer.body, "a Host field is needed\n")
  local named = test.script("redirect_https.lua", { host = "www.example.org" })
  test.equal(location(named, { version = "1.0", headers = { host = false } }), "https://www.example.org/")
end)

test("a host with strange characters is never in an answer", function()
  local web = test.script("redirect_https.lua")
  for _, host in ipairs { 'a"b', "a b", "a/b", "a@b", "<script>" } do
    local answer = web:get("/", { host = host })
    test.truthy(answer.status == 400 or not (answer.headers.location or ""):find(host, 1, true), host)
  end
end)

test("the statuses that may be chosen", function()
  for _, status in ipairs { 301, 302, 307, 308 } do
    test.equal(test.script("redirect_https.lua", { status = status }):get("/").status, status)
  end
end)

test("wrong settings are refused when it loads", function()
  local function refused(settings, why)
    test.error(function() test.script("redirect_https.lua", settings) end, why)
  end
  refused({ status = 200 }, "expected 301, 302, 307 or 308")
  refused({ port = "https" }, "expected a number")
  refused({ hots = "x" }, 'unknown setting "hots"')
end)
