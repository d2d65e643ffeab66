-- SPDX-License-Identifier: BSD-2-Clause
-- Tests of forward_auth.lua: moongate --test forward_auth_test.lua
local test = require "moongate.test"

local function world(settings, answer, options)
  local service = test.upstream("guard", answer)
  settings.url, settings.upstream = "/verify", "guard"
  return test.script("forward_auth.lua", settings, options), service
end

test("a yes lets the request pass, with what the service says of it", function()
  local web, service = world({ copy = "x-user" }, { headers = { ["x-user"] = "diana", ["x-other"] = "1" } })
  local answer = web:request { method = "POST", target = "/a?b=c", from = "192.0.2.7", body = "x",
    headers = { host = "shop.example", cookie = "s=1", authorization = "t", ["x-user"] = "root", accept = "y" } }
  test.equal(answer.status, 200)
  test.equal(answer.forwarded.headers["x-user"], "diana")
  test.equal(answer.forwarded.headers["x-other"], nil)
  test.equal(answer.forwarded.body, "x")
  local asked = service.requests[1]
  test.equal(asked.target, "/verify")
  test.equal(asked.headers["x-forwarded-method"], "POST")
  test.equal(asked.headers["x-forwarded-uri"], "/a?b=c")
  test.equal(asked.headers["x-forwarded-for"], "192.0.2.7")
  test.equal(asked.headers["x-forwarded-host"], "shop.example")
  test.equal(asked.headers.cookie, "s=1")
  test.equal(asked.headers.authorization, "t")
  test.equal(asked.headers.accept, nil)
  test.equal(asked.headers["x-user"], nil)
end)

test("a no goes to the client", function()
  local web = world({}, { status = 302, body = "go", headers = {
    location = "/login", ["set-cookie"] = { "a=1", "b=2" }, ["x-inner"] = "secret" } })
  local answer = web:get("/")
  test.equal(answer.status, 302)
  test.equal(answer.headers.location, "/login")
  test.matches(answer.headers["set-cookie"], "a=1.*b=2")
  test.equal(answer.headers["x-inner"], nil)
  test.equal(answer.body, "go")
  test.equal(answer.upstream, nil)
end)

for _, fail in ipairs { { fail = "connect" }, { fail = "timeout" }, { status = 500 } } do
  test("without an answer nobody passes: " .. (fail.fail or fail.status), function()
    local web = world({ timeout = 2 }, fail)
    local answer = web:get("/")
    test.advance(3)
    test.equal(answer.status, 503)
    test.equal(answer.upstream, nil)
  end)
end

test("a client cannot bring what the service would say", function()
  local web = world({ copy = "x-user", except = "/health" }, {})
  test.equal(web:get("/", { ["x-user"] = "root" }).forwarded.headers["x-user"], nil)
  test.equal(web:get("/health", { ["x-user"] = "root" }).forwarded.headers["x-user"], nil)
end)

test("some paths are not asked about, in every reading", function()
  local web, service = world({ except = "/health" }, { status = 401 })
  test.equal(web:get("/health").status, 200)
  test.equal(#service.requests, 0)
  test.equal(web:get("/health/..%2fadmin").status == 200, false)
end)

test("a yes is kept for a while, for the same question", function()
  local web, service = world({ copy = "x-user", cache = 10, dict = "auth" }, { headers = { ["x-user"] = "a b&c" } },
    { shared = { auth = "1m" } })
  test.equal(web:get("/", { cookie = "s=1" }).forwarded.headers["x-user"], "a b&c")
  test.equal(web:get("/", { cookie = "s=1" }).forwarded.headers["x-user"], "a b&c")
  test.equal(#service.requests, 1)
  web:get("/", { cookie = "s=2" })
  web:get("/other", { cookie = "s=1" })
  test.equal(#service.requests, 3)
  test.advance(11)
  web:get("/", { cookie = "s=1" })
  test.equal(#service.requests, 4)
end)
