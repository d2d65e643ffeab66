-- SPDX-License-Identifier: BSD-2-Clause
-- Tests of router.lua: moongate --test router_test.lua
local test = require "moongate.test"

for _, name in ipairs { "api", "shop", "beta", "canary", "files" } do test.upstream(name, 200) end

local function router(settings) return test.script("router.lua", settings) end

local function goes(web, request) return web:request(request).upstream end

test("the first rule that fits decides, the routes decide the rest", function()
  local web = router {
    rules = "host=api.example.org -> api; path=/static/ -> files; path=/ header=x-beta -> beta",
  }
  test.equal(goes(web, { headers = { host = "api.example.org" }, target = "/static/" }), "api")
  test.equal(goes(web, { target = "/static/x" }), "files")
  test.equal(goes(web, { headers = { ["X-Beta"] = "" } }), "beta")
  test.equal(goes(web, "GET /"), "origin")
end)

test("hosts fit in any case and with a port, wildcards below their name only", function()
  local web = router { rules = "host=API.example.org -> api; host=*.Shop.org -> shop" }
  local function by_host(host) return goes(web, { headers = { host = host } }) end
  test.equal(by_host("api.EXAMPLE.org:8080"), "api")
  test.equal(by_host("a.shop.org"), "shop")
  test.equal(by_host("a.b.shop.org"), "shop")
  test.equal(by_host("shop.org"), "origin")
  test.equal(by_host("notshop.org"), "origin")
  test.equal(by_host("api.example.org.evil.net"), "origin")
  test.equal(by_host("xapi.example.org"), "origin")
end)

test("all conditions of a rule must hold", function()
  local web = router { rules = "method=POST path=/a/ header=x-k:v -> api" }
  local request = { method = "POST", target = "/a/b", headers = { ["x-k"] = "v" } }
  test.equal(goes(web, request), "api")
  test.equal(goes(web, { method = "GET", target = "/a/b", headers = { ["x-k"] = "v" } }), "origin")
  test.equal(goes(web, { method = "POST", target = "/b", headers = { ["x-k"] = "v" } }), "origin")
  test.equal(goes(web, { method = "POST", target = "/a/b", headers = { ["x-k"] = "w" } }), "origin")
  test.equal(goes(web, { method = "POST", target = "/a/b" }), "origin")
end)

test("paths cannot be written around a rule", function()
  local web = router { rules = "path=/private/ -> api" }
  for _, target in ipairs { "/private/x", "/%70rivate/x" } do
    test.equal(goes(web, { target = target }), "api", target)
  end
  -- What servers may read in another way goes where all readings go, or nowhere.
  for _, target in ipairs { "//private/x", "/x/../private/x", "/./private/", "/x%2f..%2fprivate/" } do
    local answer = web:get(target)
    test.truthy(answer.upstream == "api" or answer.status == 400, target)
  end
  test.equal(goes(web, { target = "/privates" }), "origin")
end)

test("a path that fits different rules in different readings goes nowhere", function()
  local web = router { rules = "path=/private/ -> api; host=api.example.org -> shop" }
  for _, target in ipairs { "/x/../private/", "//private/", "/private/../x" } do
    local answer = web:get(target)
    test.equal(answer.status, 400, target)
    test.equal(answer.body, "the path can be read in several ways\n", target)
  end
  test.equal(goes(web, "GET //x//y"), "origin", "the same rules in all readings")
  test.equal(goes(web, "GET /private//x"), "api")
  test.equal(router { rules = "path=/private/ -> api" }:get("//private/").status, 400)
  -- Without a rule about paths it does not matter.
  test.equal(goes(router { rules = "host=www.example.org -> shop" }, "GET //private/"), "shop")
end)

test("rules come from a module, too", function()
  test.file("rules/big.lua", [[
    local list = {}
    for i = 1, 500 do
      list[i] = { host = "h" .. i .. ".example.org", upstream = i % 2 == 0 and "api" or "shop" }
    end
    list[501] = { path = "/v2/", header = "x-beta", value = "1", upstream = "beta" }
    return list]])
  local web = router { rules = "path=/first/ -> files", table = "rules.big" }
  test.equal(goes(web, { headers = { host = "h500.example.org" } }), "api")
  test.equal(goes(web, { headers = { host = "h499.example.org" } }), "shop")
  test.equal(goes(web, { headers = { host = "h1.example.org" }, target = "/first/" }), "files")
  test.equal(goes(web, { target = "/v2/", headers = { ["x-beta"] = "1" } }), "beta")
  test.equal(goes(web, { headers = { host = "h501.example.org" } }), "origin")
end)

test("a share of the addresses goes to the canary and stays there", function()
  local web = router { canary = "canary", weight = 20 }
  local count, seen = 0, {}
  for i = 0, 199 do
    local ip = "198.51.100." .. i
    seen[ip] = goes(web, { from = ip })
    if seen[ip] == "canary" then count = count + 1 end
  end
  test.truthy(count > 15 and count < 70, count .. " of 200 for 20 per cent")
  for i = 0, 199, 17 do
    local ip = "198.51.100." .. i
    test.equal(goes(web, { from = ip, target = "/other" }), seen[ip], ip)
  end
end)

test("0 and 100 per cent", function()
  local none, all = router { canary = "canary", weight = 0 }, router { canary = "canary", weight = 100 }
  for i = 1, 20 do
    test.equal(goes(none, { from = "192.0.2." .. i }), "origin")
    test.equal(goes(all, { from = "192.0.2." .. i }), "canary")
  end
end)

test("the choice follows a cookie or a field where these are there", function()
  local cookie = router { canary = "canary", weight = 50, by = "cookie:sid" }
  local field = router { canary = "canary", weight = 50, by = "header:x-user" }
  local one, two
  for i = 1, 40 do
    local by_cookie = goes(cookie, { from = "192.0.2." .. i, headers = { cookie = "a=b; sid=17; c=d" } })
    local by_field = goes(field, { from = "192.0.2." .. i, headers = { ["x-user"] = "17" } })
    one, two = one or by_cookie, two or by_field
    test.equal(by_cookie, one, "one session, many addresses")
    test.equal(by_field, two)
  end
  local sides = {}
  for i = 1, 40 do
    sides[goes(cookie, { headers = { cookie = "sid=" .. i .. "; a=b" } })] = true
  end
  test.truthy(sides.canary and sides.origin, "the wanted cookie decides, not another one")
  test.truthy(goes(cookie, { headers = { cookie = "sid=; =; ;;" } }), "a strange cookie")
end)

test("a client may choose itself", function()
  local web = router { canary = "canary", weight = 0, force = "x-route" }
  test.equal(goes(web, { headers = { ["X-Route"] = "canary" } }), "canary")
  test.equal(goes(web, { headers = { ["X-Route"] = "other" } }), "origin")
  local all = router { canary = "canary", weight = 100, force = "x-route" }
  test.equal(goes(all, { headers = { ["X-Route"] = "stable" } }), "origin")
end)

test("rules stand above the canary", function()
  local web = router { rules = "path=/api/ -> api", canary = "canary", weight = 100 }
  test.equal(goes(web, "GET /api/"), "api")
  test.equal(goes(web, "GET /"), "canary")
end)

test("a retry stays on its side", function()
  local canary = test.upstream("canary", { fail = "connect" }, 200)
  local answer = router { canary = "canary", weight = 100 }:get("/")
  test.equal(answer.status, 200)
  test.equal(answer.upstream, "canary")
  test.equal(answer.attempts, 2)
  test.equal(#canary.requests, 1)
end)

test("a rule may name an address", function()
  test.upstream("127.0.0.1:9000", { status = 201 })
  local answer = router { rules = "path=/direct/ -> 127.0.0.1:9000" }:get("/direct/")
  test.equal(answer.upstream, "127.0.0.1:9000")
  test.equal(answer.status, 201)
end)

test("an upstream that is none is an error and goes nowhere", function()
  local answer = router { rules = "path=/ -> nowhere" }:get("/")
  test.equal(answer.status, 502)
  test.equal(answer.forwarded, nil)
  test.truthy(test.logged('a script chose "nowhere"'))
end)

test("wrong settings are refused when it loads", function()
  local function refused(settings, why)
    test.error(function() router(settings) end, why)
  end
  refused({ rules = "nonsense" }, "expected CONDITION ... -> UPSTREAM")
  refused({ rules = "color=red -> api" }, 'bad condition "color=red" in rule "color=red -> api": ' ..
    "expected host=, path=, method= or header=")
  refused({ canary = "canary" }, "canary needs weight=PERCENT")
  refused({ canary = "canary", weight = 101 }, "weight is 0 to 100")
  refused({ canary = "canary", weight = -1 }, "weight is 0 to 100")
  refused({ canary = "canary", weight = 5, by = "moon" }, "expected address, cookie:NAME or header:NAME")
  refused({ table = "no.such" }, 'no module "no.such"')
  test.file("broken.lua", "return { { path = '/' } }")
  refused({ table = "broken" }, "names no upstream")
end)
