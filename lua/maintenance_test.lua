-- SPDX-License-Identifier: BSD-2-Clause
-- Tests of maintenance.lua: moongate --test maintenance_test.lua
local test = require "moongate.test"

test("everybody gets the page", function()
  local answer = test.script("maintenance.lua", { text = "a < b" }):get("/")
  test.equal(answer.status, 503)
  test.equal(answer.headers["retry-after"], "300")
  test.equal(answer.headers["cache-control"], "no-store")
  test.matches(answer.body, "<h1>a &lt; b</h1>")
  test.equal(answer.upstream, nil)
end)

test("but for those who work on it, and some paths", function()
  local web = test.script("maintenance.lua", { except = "192.0.2.1", paths = "/health" })
  test.equal(web:request { from = "192.0.2.1", target = "/" }.status, 200)
  test.equal(web:request { from = "192.0.2.2", target = "/" }.status, 503)
  test.equal(web:get("/health").status, 200)
  test.equal(web:get("/health%2f../x").status == 200, false)
end)

test("it is switched at run time, by those who may", function()
  local web = test.script("maintenance.lua", { dict = "switches", control = "/maintenance", from = "192.0.2.0/24" },
    { shared = { switches = "1m" } })
  local function ask(method, from)
    local answer = web:request { method = method, target = "/maintenance", from = from or "192.0.2.9" }
    return answer.status, answer.body
  end
  test.equal(web:get("/").status, 200)
  test.equal(ask("POST", "198.51.100.1"), 403)
  test.equal(web:get("/").status, 200)
  test.same({ ask("POST") }, { 200, "on\n" })
  test.equal(web:get("/").status, 503)
  test.same({ ask("GET") }, { 200, "on\n" })
  test.same({ ask("DELETE") }, { 200, "off\n" })
  test.equal(web:get("/").status, 200)
  test.equal(ask("PUT"), 405)
end)

test("it can begin switched on, or off", function()
  test.equal(test.script("maintenance.lua", { on = "off" }):get("/").status, 200)
  test.equal(test.script("maintenance.lua", { dict = "s", on = "on" }, { shared = { s = "1m" } }):get("/").status, 503)
  test.error(function() test.script("maintenance.lua", { control = "/x" }) end, "needs dict=NAME")
end)
