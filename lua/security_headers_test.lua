-- SPDX-License-Identifier: BSD-2-Clause
-- Tests of security_headers.lua: moongate --test security_headers_test.lua
local test = require "moongate.test"

test("fields are added, and what tells of the server is taken out", function()
  local web = test.script("security_headers.lua", { csp = "default-src 'self'" })
  test.upstream("origin", { headers = { server = "x/1", ["x-powered-by"] = "y", ["x-own"] = "z" } })
  local headers = web:get("/").headers
  test.equal(headers["content-security-policy"], "default-src 'self'")
  test.equal(headers["x-frame-options"], "SAMEORIGIN")
  test.equal(headers["x-content-type-options"], "nosniff")
  test.equal(headers["referrer-policy"], "strict-origin-when-cross-origin")
  test.equal(headers["permissions-policy"], nil)
  test.equal(headers["server"], nil)
  test.equal(headers["x-powered-by"], nil)
  test.equal(headers["x-own"], "z")
  test.equal(headers["strict-transport-security"], nil, "over http nobody believes it")
end)

test("what the server has set stays, unless it is forced", function()
  test.upstream("origin", { headers = { ["x-frame-options"] = "DENY" } })
  test.equal(test.script("security_headers.lua"):get("/").headers["x-frame-options"], "DENY")
  test.equal(test.script("security_headers.lua", { force = "on" }):get("/").headers["x-frame-options"], "SAMEORIGIN")
end)

test("off leaves a field alone", function()
  local web = test.script("security_headers.lua", { frames = "off", hide = "off" })
  test.upstream("origin", { headers = { server = "x/1" } })
  local headers = web:get("/").headers
  test.equal(headers["x-frame-options"], nil)
  test.equal(headers["server"], "x/1")
end)

test("errors of moongate's own have them, too", function()
  local web = test.script("security_headers.lua")
  test.upstream("origin", { fail = "connect" })
  local answer = web:get("/")
  test.equal(answer.status, 502)
  test.equal(answer.headers["x-content-type-options"], "nosniff")
end)
