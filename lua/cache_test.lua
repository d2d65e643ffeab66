-- SPDX-License-Identifier: BSD-2-Clause
-- Tests of cache.lua: moongate --test cache_test.lua
local test = require "moongate.test"

local FRESH = { ["cache-control"] = "max-age=60", ["content-type"] = "text/plain" }

local function world(settings)
  settings.dict = "pages"
  return test.script("cache.lua", settings, { shared = { pages = "4m" } })
end

-- An origin that numbers its answers.
local function origin(headers, status)
  local n = 0
  return test.upstream("origin", function()
    n = n + 1
    return { status = status, headers = headers or FRESH, body = "page " .. n }
  end)
end

test("an answer that says for how long is kept that long, for everybody", function()
  local web, app = world {}, origin()
  local first = web:get("/a?b=1")
  test.equal(first.headers["x-cache"], "miss")
  test.advance(10)
  local second = web:request { target = "/a?b=1", from = "192.0.2.9" }
  test.equal(second.body, "page 1")
  test.equal(second.headers["x-cache"], "hit")
  test.equal(second.headers.age, "10")
  test.equal(second.headers["content-type"], "text/plain")
  test.equal(second.headers["content-length"], "6")
  test.advance(51)
  test.equal(web:get("/a?b=1").body, "page 2")
  test.equal(#app.requests, 2)
end)

test("HEAD is served, not kept", function()
  local web = world {}
  origin()
  web:request { method = "HEAD", target = "/" }
  test.equal(web:get("/").headers["x-cache"], "miss")
  local head = web:request { method = "HEAD", target = "/" }
  test.equal(head.headers["x-cache"], "hit")
  test.equal(head.body, "")
end)

test("other targets, hosts and codings are other pages", function()
  local web, app = world {}, origin()
  web:get("/a")
  web:get("/b")
  web:get("/a?")
  web:get("/a", { host = "other.example" })
  web:get("/a", { ["accept-encoding"] = "gzip" })
  test.equal(#app.requests, 5)
end)

for name, headers in pairs {
  nothing = {}, ["no-store"] = { ["cache-control"] = "max-age=60, no-store" },
  private = { ["cache-control"] = "private, max-age=60" }, ["no-cache"] = { ["cache-control"] = "no-cache, max-age=60" },
  cookie = { ["cache-control"] = "max-age=60", ["set-cookie"] = "a=1" },
  vary = { ["cache-control"] = "max-age=60", vary = "cookie" }, old = { ["cache-control"] = "max-age=60", age = "60" },
  shared = { ["cache-control"] = "max-age=60, s-maxage=0" },
} do
  test("an answer is not kept: " .. name, function()
    local web, app = world {}, origin(headers)
    web:get("/")
    test.equal(web:get("/").body, "page 2")
    test.equal(#app.requests, 2)
  end)
end

for name, headers in pairs {
  authorization = { authorization = "x" }, range = { range = "bytes=0-1" }, condition = { ["if-none-match"] = '"1"' },
  ["no-cache"] = { ["cache-control"] = "no-cache" }, ["no-store"] = { ["cache-control"] = "no-store" },
} do
  test("a request goes past the cache: " .. name, function()
    local web = world {}
    origin()
    web:get("/")
    test.equal(web:get("/", headers).body, "page 2")
    if name ~= "no-cache" then test.equal(web:get("/").body, "page 1", "and leaves nothing there") end
  end)
end

test("other methods and statuses are not kept", function()
  local web = world {}
  origin(FRESH, 500)
  web:get("/")
  test.equal(web:get("/").body, "page 2")
  origin()
  web:request { method = "POST", target = "/x", body = "a" }
  test.equal(web:get("/x").headers["x-cache"], "miss")
end)

test("what is too large passes", function()
  local web = world { max_size = 1000 }
  test.upstream("origin", { headers = FRESH, body = ("x"):rep(1001) })
  web:get("/")
  local answer = web:get("/")
  test.equal(answer.headers["x-cache"], "miss")
  test.equal(#answer.body, 1001)
end)

test("bytes of any kind, several fields of one name, arguments that make no difference", function()
  local web = world { ignore = "utm_source", max_age = 5 }
  local app = test.upstream("origin", { body = "\0\255\r\n", headers = { ["cache-control"] = "max-age=60",
    link = { "</a>; rel=x", "</b>; rel=y" } } })
  web:get("/?utm_source=1&a=2")
  local answer = web:get("/?a=2&utm_source=3")
  test.equal(answer.body, "\0\255\r\n")
  test.equal(answer.headers.link, "</a>; rel=x, </b>; rel=y")
  test.equal(#app.requests, 1)
  test.advance(6)
  web:get("/?a=2")
  test.equal(#app.requests, 2)
end)
