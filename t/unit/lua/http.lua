-- SPDX-License-Identifier: BSD-2-Clause
-- Query strings and cookies, those of the request that test_script_libraries.c makes among them.
local gate = require "moongate"
local query, cookie = gate.query, gate.cookie

local function is(got, expected)
  if got ~= expected then error("expected " .. tostring(expected) .. ", got " .. tostring(got), 2) end
end
local function refuses(message, call, ...)
  local ok, why = pcall(call, ...)
  if ok or not tostring(why):find(message, 1, true) then error("expected an error with " .. message .. ", got " .. tostring(why), 2) end
end

is(query.escape "", "")  -- first of all: nothing has taken room yet
is(query.escape "azAZ09-._~", "azAZ09-._~")
is(query.escape " /?&=%+\0\255", "%20%2F%3F%26%3D%25%2B%00%FF")
is(query.escape(5), "5")
is(query.escape "", "")
is(query.unescape "a+b%26c%zz%", "a b&c%zz%")
is(query.unescape "%00%fF", "\0\255")
is(query.unescape "%4", "%4")
local all = {}
for i = 0, 255 do all[i + 1] = string.char(i) end
all = table.concat(all)
is(query.unescape(query.escape(all)), all)

local args, cut = query.parse "a=1&b&=e&a=2&&c=x=y&a=3&%64=%20"
is(args.a[1] .. args.a[2] .. args.a[3] .. #args.a, "1233")
is(args.b, "")
is(args[""], "e")
is(args.c, "x=y")
is(args.d, " ")
is(cut, false)
is(next((query.parse "")), nil)
args, cut = query.parse("a=1&b=2&c=3", 2)
is(args.b, "2")
is(args.c, nil)
is(cut, true)
args, cut = query.parse(("&x=1"):rep(1001))
is(cut, true)

is(query.build { b = "x y", a = { 1, true, "z" }, c = true, d = false, ["e&"] = "=" }, "a=1&a&a=z&b=x%20y&c&e%26=%3D")
is(query.build {}, "")

local cookies = cookie.parse 'a=1; b="two words";a=3; =x; y; c="; d = e ; f==g'
is(cookies.a, "1")
is(cookies.b, "two words")
is(cookies.c, '"')
is(cookies.d, "e")
is(cookies.f, "=g")
is(cookies.y, nil)
is(cookies[""], nil)
is(next((cookie.parse "")), nil)
cookies, cut = cookie.parse(("a=1;b=2;"):rep(600))
is(cut, true)
is(cookies.b, "2")

is(cookie.build("a", "1"), "a=1")
is(cookie.build("a", ""), "a=")
is(cookie.build("a", 1, {}), "a=1")
is(cookie.build("__Host-a", "1", { path = "/", domain = nil, max_age = 0, expires = 784111777, secure = true, http_only = true,
  same_site = "none", partitioned = true }),
  "__Host-a=1; Path=/; Max-Age=0; Expires=Sun, 06 Nov 1994 08:49:37 GMT; Secure; HttpOnly; SameSite=None; Partitioned")
is(cookie.build("a", "1", { domain = "example.org", same_site = "strict", secure = false, http_only = false }),
  "a=1; Domain=example.org; SameSite=Strict")
is(cookie.build("a", "1", { max_age = -1 }), "a=1; Max-Age=-1")

for _, name in ipairs { "", "a b", "a=b", "a;b", "a\r\nb", "a\0", "ü", "a,b" } do
  refuses("gate.cookie.build: expected a name", cookie.build, name, "")
end
for _, value in ipairs { " ", "a b", "a;b", "a,b", "a\r\nSet-Cookie: b", "a\0", "ü", '"a"', "a\\b", "\127" } do
  refuses('the value of "n" has a character', cookie.build, "n", value)
end
for _, value in ipairs { "/;x", "/\r\nx", "/\0", "/ü", "/\127" } do
  refuses('the attribute "path" of a cookie has a character', cookie.build, "n", "v", { path = value })
  refuses('the attribute "domain" of a cookie has a character', cookie.build, "n", "v", { domain = value })
end
refuses('the attribute "path" of a cookie: expected a string', cookie.build, "n", "v", { path = 5 })
refuses("expected whole seconds", cookie.build, "n", "v", { max_age = "1; Secure" })
refuses("expected whole seconds", cookie.build, "n", "v", { max_age = 0 / 0 })
refuses("seconds since 1970", cookie.build, "n", "v", { expires = "tomorrow" })
refuses('expected "strict", "lax" or "none"', cookie.build, "n", "v", { same_site = "None; Secure" })
refuses('unknown attribute "httponly"', cookie.build, "n", "v", { httponly = true })
refuses("without secure", cookie.build, "n", "v", { same_site = "none" })
refuses("without secure", cookie.build, "n", "v", { partitioned = true })
refuses("without secure", cookie.build, "__Secure-n", "v")
refuses("without secure", cookie.build, "__host-n", "v", { path = "/" })
refuses('unless path is "/"', cookie.build, "__Host-n", "v", { secure = true })
refuses('unless path is "/"', cookie.build, "__Host-n", "v", { secure = true, path = "/", domain = "d" })

refuses("gate.query.escape: expected a string, got nil", query.escape)
refuses("gate.query.unescape: expected a string, got a table", query.unescape, {})
refuses("gate.query.parse: expected a string", query.parse)
refuses("gate.query.parse: expected a limit as a number", query.parse, "", "x")
refuses("gate.query.build: expected a table", query.build, "a=b")
refuses("gate.query.build: expected a string, got a function", query.build, { a = print })
refuses("gate.query.build: expected names as strings, got a number", query.build, { "a" })
refuses("gate.cookie.parse: expected a string", cookie.parse)

return {
  request = function(req)
    is(req.cookies.a, "1")
    is(req.cookies.b, "two")
    is(req.cookies.c, "3=4")
    is(req.cookies.d, "5")
    is(req.cookies.lone, nil)
    is(req.cookies[""], nil)
    is(req.cookies == req.cookies, true)
    refuses("a cookie's name: expected a string, got a boolean", function() return req.cookies[true] end)
    refuses("set req.headers.cookie", function() req.cookies.a = "2" end)
    req.headers.cookie = "new=1"
    is(req.cookies.a, nil)
    is(req.cookies.new, "1")
    req.headers.cookie = nil
    is(req.cookies.new, nil)
  end,
}
