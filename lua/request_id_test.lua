-- SPDX-License-Identifier: BSD-2-Clause
-- Tests of request_id.lua: moongate --test request_id_test.lua
local test = require "moongate.test"

test("server and client get the id of the logs", function()
  local web = test.script("request_id.lua")
  local answer = web:get("/")
  test.equal(answer.headers["x-request-id"], answer.forwarded.headers["x-request-id"])
  test.matches(answer.headers["x-request-id"], "^%x+$")
  test.truthy(web:get("/").headers["x-request-id"] ~= answer.headers["x-request-id"])
end)

test("a client's own is replaced, a trusted one's kept", function()
  local web = test.script("request_id.lua", { header = "x-id", trust = "192.0.2.0/24" })
  local own = { ["x-id"] = "mine-1" }
  test.equal(web:request { from = "192.0.2.1", headers = own }.forwarded.headers["x-id"], "mine-1")
  test.equal(web:request { from = "192.0.2.1", headers = own }.headers["x-id"], "mine-1")
  test.truthy(web:request { from = "198.51.100.1", headers = own }.forwarded.headers["x-id"] ~= "mine-1")
  for _, bad in ipairs { ("x"):rep(129), "a b", "<script>" } do
    local got = web:request { from = "192.0.2.1", headers = { ["x-id"] = bad } }
    test.matches(got.forwarded.headers["x-id"], "^%x+$")
  end
end)

test("errors have it, too", function()
  local web = test.script("request_id.lua")
  test.upstream("origin", { fail = "connect" })
  local answer = web:get("/")
  test.equal(answer.status, 502)
  test.matches(answer.body, answer.headers["x-request-id"])
end)

test("the client need not be told", function()
  local answer = test.script("request_id.lua", { answer = "off" }):get("/")
  test.equal(answer.headers["x-request-id"], nil)
  test.truthy(answer.forwarded.headers["x-request-id"])
end)
