-- SPDX-License-Identifier: BSD-2-Clause
-- Tests of firewall.lua: moongate --test firewall_test.lua
local test = require "moongate.test"

local function closed(web, ip) return web:connect(ip).rejected end

local function statuses(web, cases)
  for _, case in ipairs(cases) do
    test.equal(web:request(case[1]).status, case[2],
      type(case[1]) == "table" and (case[1].method or "GET") .. " " .. (case[1].target or "/") or case[1])
  end
end

test("without settings it lets everything through", function()
  local web = test.script("firewall.lua")
  local answer = web:request { method = "DELETE", target = "/admin/", from = "198.51.100.1" }
  test.equal(answer.status, 200)
  test.equal(answer.upstream, "origin")
  test.equal(answer.forwarded.method, "DELETE")
end)

test("denied networks are closed before a byte is read", function()
  local web = test.script("firewall.lua", { deny = "192.0.2.0/24, 2001:db8::/32" })
  test.truthy(closed(web, "192.0.2.1"), "IPv4")
  test.truthy(closed(web, "2001:db8::1"), "IPv6")
  test.truthy(closed(web, "::ffff:192.0.2.1"), "IPv4 that came by an IPv6 socket")
  test.falsy(closed(web, "192.0.3.1"))
  test.falsy(closed(web, "2001:db9::1"))
end)

test("networks come from files", function()
  local web = test.script("firewall.lua", {
    denied = test.file("denied.txt", "# the neighbours\n192.0.2.0/25   # lower half\r\n\n2001:db8::/32\n"),
    allowed = test.file("allowed.txt", "192.0.2.0/24\n2001:db8:1::/48\n"),
  })
  test.truthy(closed(web, "192.0.2.127"), "denied and allowed")
  test.falsy(closed(web, "192.0.2.128"), "allowed")
  test.truthy(closed(web, "2001:db8:1::1"), "denied and allowed")
  test.truthy(closed(web, "198.51.100.1"), "not named at all")
end)

test("a file and a setting add up", function()
  local web = test.script("firewall.lua", { denied = test.file("d.txt", "192.0.2.1\n"), deny = "192.0.2.2" })
  test.truthy(closed(web, "192.0.2.1"))
  test.truthy(closed(web, "192.0.2.2"))
  test.falsy(closed(web, "192.0.2.3"))
end)

test("allow lets nobody else in", function()
  local web = test.script("firewall.lua", { allow = "192.0.2.0/24", deny = "192.0.2.9" })
  test.falsy(closed(web, "192.0.2.1"))
  test.truthy(closed(web, "192.0.2.9"))
  test.truthy(closed(web, "198.51.100.1"))
  test.truthy(closed(web, "::1"))
end)

test("allow alone is enough", function()
  local web = test.script("firewall.lua", { allow = "192.0.2.0/24" })
  test.falsy(closed(web, "192.0.2.1"))
  test.truthy(closed(web, "198.51.100.1"))
end)

test("drop=off answers 403 in place of closing", function()
  local web = test.script("firewall.lua", { deny = "192.0.2.7", drop = false, log = true })
  local client = web:connect("192.0.2.7")
  test.falsy(client.rejected)
  local answer = client:get("/")
  test.equal(answer.status, 403)
  test.equal(answer.body, "forbidden\n")
  test.equal(answer.upstream, nil)
  test.truthy(test.logged("refused 192.0.2.7 GET / for its network"))
  test.equal(web:request { from = "192.0.2.8" }.status, 200)
end)

test("methods outside of the list are answered 405 with the list", function()
  local web = test.script("firewall.lua", { methods = "GET post" })
  statuses(web, { { "GET /", 200 }, { "POST /", 200 }, { "HEAD /", 405 }, { "DELETE /x", 405 } })
  local answer = web:request("PUT /")
  test.equal(answer.headers.allow, "GET, POST")
  test.equal(answer.body, "method not allowed\n")
  test.truthy(web:request("get /").status >= 400, "methods tell upper and lower case apart")
end)

test("paths are looked at decoded and without dot segments", function()
  local web = test.script("firewall.lua", { deny_paths = "/admin/ %.php$ ^/wp%-", allow_paths = "/admin/ok" })
  statuses(web, {
    { "GET /", 200 }, { "GET /admin", 200 }, { "GET /admin/", 403 }, { "GET /admin/x?y=1", 403 },
    { "GET /%61dmin/x", 403 }, { "GET /a/..//admin/x", 403 }, { "GET //admin/x", 403 },
    { "GET /./admin/", 403 },
    { "GET /admin%2fx", 403 },
    { "GET /admin/ok", 200 }, { "GET /admin/ok/../secret", 403 },
    { "GET /x.php", 403 }, { "GET /x.php?q", 403 }, { "GET /x.ph%70", 403 }, { "GET /x.phpx", 200 },
    { "GET /wp-login", 403 }, { "GET /x/wp-login", 200 }, { "GET /?/admin/", 200 },
  })
end)

test("a path that can be read in several ways: one that is denied is enough, all must be allowed", function()
  local web = test.script("firewall.lua", { deny_paths = "/admin/", allow_paths = "/admin/ok" })
  statuses(web, {
    { "GET /x%2f/admin/", 200 }, { "GET /admin%2fx", 403 }, { "GET /admin/../x", 403 },
    { "GET /admin/ok//x", 200 }, { "GET /admin//ok", 403 }, { "GET /admin/x/../ok", 403 },
  })
end)

test("a target that is not understood never gets past", function()
  local web = test.script("firewall.lua", { deny_paths = "/admin/ /etc/" })
  test.equal(web:request { raw = "GET /%zz/../admin/ HTTP/1.1\r\nHost: a\r\n\r\n" }.upstream, nil)
  test.equal(web:request { target = "http://other.example/admin/x" }.status, 403, "the whole URL as target")
  test.equal(web:request("GET /../../etc/passwd").upstream, nil, "above the root")
  test.equal(web:request("GET /x/..%2fadmin/y").upstream, nil, "a dot segment that is encoded")
end)

test("fields are matched in lower case, also when they are repeated", function()
  local web = test.script("firewall.lua", { deny_headers = "User-Agent: sqlmap|x; x-bad: ." })
  test.equal(web:get("/", { ["User-Agent"] = "SQLMAP|X 1.0" }).status, 403)
  test.equal(web:get("/", { ["USER-AGENT"] = "curl" }).status, 200)
  test.equal(web:get("/", { ["x-bad"] = "" }).status, 200, "an empty field has no character")
  test.equal(web:get("/", { ["x-bad"] = { "", "1" } }).status, 403, "the second of two")
  test.equal(web:get("/", { "X-BAD: 1" }).status, 403)
end)

test("what it refuses is logged only when that is wanted", function()
  test.equal(test.script("firewall.lua", { deny_paths = "/x" }):get("/x").status, 403)
  test.equal(#test.log(), 0)
end)

test("wrong settings are refused when it loads", function()
  local function refused(settings, why)
    test.error(function() test.script("firewall.lua", settings) end, why)
  end
  refused({ dennied = "x" }, 'unknown setting "dennied"')
  refused({ denied = "/nowhere/denied.txt" }, "cannot open")
  refused({ denied = test.file("bad.txt", "192.0.2.0/24\n192.0.2.0/33\n") }, "bad.txt:2")
  refused({ deny = "192.0.2" }, "192.0.2")
  refused({ deny_paths = "%" }, 'bad pattern "%"')
  refused({ deny_headers = "no colon" }, "expected NAME: PATTERN")
  refused({ deny_headers = "a: [" }, 'bad pattern "["')
  refused({ drop = "perhaps" }, "expected on or off")
end)

test("thousands of networks", function()
  local lines = {}
  for i = 0, 4999 do lines[#lines + 1] = ("10.%d.%d.0/25"):format(math.floor(i / 256), i % 256) end
  local web = test.script("firewall.lua", { denied = test.file("many.txt", table.concat(lines, "\n")) })
  test.truthy(closed(web, "10.0.0.1"))
  test.truthy(closed(web, "10.19.135.127"))
  test.falsy(closed(web, "10.19.135.128"))
  test.falsy(closed(web, "10.19.136.1"))
end)
