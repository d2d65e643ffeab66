-- SPDX-License-Identifier: BSD-2-Clause
-- Tests of jwt.lua: moongate --test jwt_test.lua
--
-- The tokens were made with openssl dgst; their times are about the hour with which the clock of tests begins.
local test = require "moongate.test"

local SECRET = "a secret of thirty-two bytes, or more"
local KEY = [[
-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAxUhn1aak3VLghro9zClL
/OFm0wuSd/s+QqOtGKOG4I3S5V9YjcIEa6GF3sgZo9hYMr9SlhdxbwpfTfBfEzrk
KcnoUyY0oFXSug9Hy0EVMt2lzmYfiHfAxbIjdkVhnLDuGtD3MVWeQY6YmATmQiDn
lXKGDoduoI6bwOq7opOj6HxbksxBl5HdAkzCFlymDarW+UMoSqAAlONgiqHn9FYK
YHxGCuxtZiDQ6pvmfUD/dE2mgzU0TRtXZcRm2LrlsNQIL5p/F7+WWFxmUiw6tVku
+Dc6HNPF7vpIr2F5ypXjdQsyI1H8WPjvOe/g0U5K6eBuybsIyw7ueK0HUMmJPcpN
NQIDAQAB
-----END PUBLIC KEY-----
]]
local SHORT_KEY = [[
-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC3uMIe2j8ZcsLQwWrq1tdp1tWH
/FSx/hfO6ViYCIVWG2m5P05AhWu1EEP05D+wR/VF9K6vLcBb6y6Mdmtmto+0EUHA
UnHZK19Mxg3tParVq7dgW3xLExNrVCC9bEzrdCHpiBNyoNau+uTce/PjDyUXwOob
pKOqqPkvuBkWXNTH/QIDAQAB
-----END PUBLIC KEY-----
]]

local tokens = {
  good = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJkaWFuYSIsImlzcyI6Imh0dHBzOi8vbG9naW4uZXhhbXBsZSIsImF" ..
    "1ZCI6WyJzaG9wIiwiYmxvZyJdLCJleHAiOjE3NjcyMjkyMDAsImdyb3VwcyI6WyJhIiwiYiJdLCJuIjoxN30.ISxQpeJuGovlMme" ..
    "p_QxxaXOL80topr0PJIzBjhn9eOw",
  good384 = "eyJhbGciOiJIUzM4NCIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJkaWFuYSIsImlzcyI6Imh0dHBzOi8vbG9naW4uZXhhbXBsZSIsImF" ..
    "1ZCI6WyJzaG9wIiwiYmxvZyJdLCJleHAiOjE3NjcyMjkyMDAsImdyb3VwcyI6WyJhIiwiYiJdLCJuIjoxN30.32t51IIWl7xdw_D" ..
    "JTkGyhVPd1BG8cYJFBsVjbXGwEYNvFT0i8V4EZ5hZuTmH_Nb2",
  rs256 = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJkaWFuYSIsImlzcyI6Imh0dHBzOi8vbG9naW4uZXhhbXBsZSIsImF" ..
    "1ZCI6WyJzaG9wIiwiYmxvZyJdLCJleHAiOjE3NjcyMjkyMDAsImdyb3VwcyI6WyJhIiwiYiJdLCJuIjoxN30.kF9qaHLCQvUV8RJ" ..
    "mji7-7QhblQgT9p2gfNH3VWkXRL9krhgWtKO0bUDi8ZRGvAhGgYNtkDP1RqD3uYQ0um3FW4qPzjQldDqUR8W4CzLRzfZwGRiWr3-" ..
    "t-92wjkdzjwh1WehlDQ-_Z1JzS8Ki2nu1ENq2_rB4RmHCKvKQ1gIMRUkXPQut_sHK28iV0lhPUfROSC-rMO6mHGRhyoepy0FXSfW" ..
    "fFTFS6_fI6WgmxhP3yuARmvSdh9dLZB82y_humGOod_8WlotYFeMPPdnUOF1AOKNW_D5HqCPvcLYh4cr0h5lzFZtPw070vPIBQgP" ..
    "g7-zJ7s5DVn6Lxwpkxs9cRTiY8g",
  rs512 = "eyJhbGciOiJSUzUxMiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJkaWFuYSIsImlzcyI6Imh0dHBzOi8vbG9naW4uZXhhbXBsZSIsImF" ..
    "1ZCI6WyJzaG9wIiwiYmxvZyJdLCJleHAiOjE3NjcyMjkyMDAsImdyb3VwcyI6WyJhIiwiYiJdLCJuIjoxN30.eM-8f4swbezwmfL" ..
    "aLRjiqmRjjfdKE5DI5h6QSJV6YbUHPfBN9Y4UqgNXN_CJdeTD9YAoC7_7Y_nhqm6vG6vMntmFg7GxlPiY6oCLg0LE-oL6vrt_JaL" ..
    "Iy28faE73iTuf9KjCO4F7OGEye8e0RpaXM_RnOrnYoQg5Xi_QmHmEJtxuDQZK0zIFd4Ro3RdJtzV0LV_nOvypTA20gDP51CiZSSH" ..
    "r-nEAHBUs4GMnRaUKWSuvQ0em8pBNN6MgtOo71ZrCUiY5UsC2Md4GSc-Btu_H5nLRqOrc6G6r2JG7XUbpWmjHVNtPx3jsdVGCEbY" ..
    "gaZ0-FVhQw98fzzuNiWyP41oHnA",
  none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiJkaWFuYSIsImlzcyI6Imh0dHBzOi8vbG9naW4uZXhhbXBsZSIsImF1" ..
    "ZCI6WyJzaG9wIiwiYmxvZyJdLCJleHAiOjE3NjcyMjkyMDAsImdyb3VwcyI6WyJhIiwiYiJdLCJuIjoxN30.eA",
  other_secret = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJkaWFuYSIsImlzcyI6Imh0dHBzOi8vbG9naW4uZXhhbXBsZSIsImF" ..
    "1ZCI6WyJzaG9wIiwiYmxvZyJdLCJleHAiOjE3NjcyMjkyMDAsImdyb3VwcyI6WyJhIiwiYiJdLCJuIjoxN30.L__TjHxeEum9PkQ" ..
    "AiJIYKd9yAtWUfQrCdEE9E9NQHIQ",
  confused = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJkaWFuYSIsImlzcyI6Imh0dHBzOi8vbG9naW4uZXhhbXBsZSIsImF" ..
    "1ZCI6WyJzaG9wIiwiYmxvZyJdLCJleHAiOjE3NjcyMjkyMDAsImdyb3VwcyI6WyJhIiwiYiJdLCJuIjoxN30.sCQEAqpxlA3zwF8" ..
    "CTADdVK-j3uPGVFcCkweUW8XK2x0",
  endless = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJkaWFuYSIsImlzcyI6Imh0dHBzOi8vbG9naW4uZXhhbXBsZSIsImF" ..
    "1ZCI6WyJzaG9wIiwiYmxvZyJdLCJncm91cHMiOlsiYSIsImIiXSwibiI6MTd9.V7-_AYcQGhorqbeaTispGioHlJK2CPyNrEPlk-" ..
    "Pfzh0",
  early = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJkaWFuYSIsImlzcyI6Imh0dHBzOi8vbG9naW4uZXhhbXBsZSIsImF" ..
    "1ZCI6WyJzaG9wIiwiYmxvZyJdLCJleHAiOjE3NjcyMjkyMDAsImdyb3VwcyI6WyJhIiwiYiJdLCJuIjoxNywibmJmIjoxNzY3MjI" ..
    "2MjAwfQ.A2UTc-gsVVWoCgUeOzpMDRJPQxpHM-jI9Aff6m7g-ic",
  words = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJkaWFuYSIsImlzcyI6Imh0dHBzOi8vbG9naW4uZXhhbXBsZSIsImF" ..
    "1ZCI6WyJzaG9wIiwiYmxvZyJdLCJleHAiOiJuZXZlciIsImdyb3VwcyI6WyJhIiwiYiJdLCJuIjoxN30.3Jqy8jg2ZpaKnM-4Ayq" ..
    "Zjs7aihTcXcSxo52mn05Pfg8",
  issuer = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJkaWFuYSIsImlzcyI6Imh0dHBzOi8vZXZpbC5leGFtcGxlIiwiYXV" ..
    "kIjpbInNob3AiLCJibG9nIl0sImV4cCI6MTc2NzIyOTIwMCwiZ3JvdXBzIjpbImEiLCJiIl0sIm4iOjE3fQ.at90MgCNTkbYwXX2" ..
    "eg8MNkMpqbeBbEwNC4d_wbZG7Yw",
  audience = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJkaWFuYSIsImlzcyI6Imh0dHBzOi8vbG9naW4uZXhhbXBsZSIsImF" ..
    "1ZCI6ImJsb2ciLCJleHAiOjE3NjcyMjkyMDAsImdyb3VwcyI6WyJhIiwiYiJdLCJuIjoxN30.M6jtT3RHCGMmrcUFAQvWcmHrTNL" ..
    "2bCErAoJ0X68dqjY",
  crit = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCIsImNyaXQiOlsieCJdfQ.eyJzdWIiOiJkaWFuYSIsImlzcyI6Imh0dHBzOi8vbG9na" ..
    "W4uZXhhbXBsZSIsImF1ZCI6WyJzaG9wIiwiYmxvZyJdLCJleHAiOjE3NjcyMjkyMDAsImdyb3VwcyI6WyJhIiwiYiJdLCJuIjoxN" ..
    "30.Nl9ibZ4VjKTZ6OzrIzDWApWhNVsBJI3cia-311pEo5g",
  evil = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhXHJcbngtYWRtaW46IDEiLCJpc3MiOiJodHRwczovL2xvZ2luLmV" ..
    "4YW1wbGUiLCJhdWQiOlsic2hvcCIsImJsb2ciXSwiZXhwIjoxNzY3MjI5MjAwLCJncm91cHMiOlsiYSIsImIiXSwibiI6MTd9.E0" ..
    "hTThZiF5tZA8suc6ufhkn5AHhzGYYFWCr-aq0QOhs",
}

local function bearer(name) return { authorization = "Bearer " .. tokens[name] } end
local function world(settings)
  if not settings.key then settings.secret = settings.secret or SECRET end
  return test.script("jwt.lua", settings)
end
local function with_key(settings)
  settings.key = test.file("issuer.pem", KEY)
  return world(settings)
end

test("a good token passes, and the server learns what it says", function()
  local web = world { issuer = "https://login.example", audience = "shop", claims = "sub=x-user groups=x-groups n=x-n iat=x-iat" }
  local answer = web:get("/", bearer "good")
  test.equal(answer.status, 200)
  local headers = answer.forwarded.headers
  test.equal(headers["x-user"], "diana")
  test.equal(headers["x-groups"], "a b")
  test.equal(headers["x-n"], "17")
  test.equal(headers["x-iat"], nil)
  test.truthy(headers.authorization)
  test.equal(web:get("/", bearer "good384").status, 200)
  test.equal(world({ keep = "off" }):get("/", bearer "good").forwarded.headers.authorization, nil)
end)

test("without one the client is asked for it", function()
  local answer = world({}):get("/", { host = "shop.example" })
  test.equal(answer.status, 401)
  test.equal(answer.headers["www-authenticate"], 'Bearer realm="shop.example"')
  test.equal(answer.upstream, nil)
end)

local bad = {
  { "none", "its signature is wrong" }, { "other_secret", "its signature is wrong" }, { "rs256", "its signature is wrong" },
  { "endless", "it has expired" }, { "words", "it has expired" }, { "early", "it is not valid yet" },
  { "issuer", "it is of another issuer" }, { "audience", "it is for another audience" },
  { "crit", "it needs what is not known here" },
}
for _, case in ipairs(bad) do
  test("refused: " .. case[1], function()
    local answer = world({ issuer = "https://login.example", audience = "shop" }):get("/", bearer(case[1]))
    test.equal(answer.status, 401)
    test.matches(answer.headers["www-authenticate"], 'error="invalid_token", error_description="' .. case[2] .. '"')
    test.equal(answer.upstream, nil)
  end)
end

test("refused: what is no token, and every bit that was changed", function()
  local web = world {}
  for _, text in ipairs { "", "x", "a.b.c", "..", tokens.good .. "x", tokens.good .. ".x", tokens.good:sub(1, -2), "=" } do
    test.equal(web:get("/", { authorization = "Bearer " .. text }).status, 401, text)
  end
  local token = tokens.good
  for at = 1, #token - 1, 7 do
    local one = token:sub(at, at)
    if one ~= "." then
      local other = token:sub(1, at - 1) .. (one == "A" and "B" or "A") .. token:sub(at + 1)
      test.equal(web:get("/", { authorization = "Bearer " .. other }).status, 401, "at " .. at)
    end
  end
end)

test("a token ends", function()
  local web = world { leeway = 10 }
  test.advance(3600)
  test.equal(web:get("/", bearer "good").status, 200)
  test.advance(11)
  test.equal(web:get("/", bearer "good").status, 401)
end)

test("tokens that are signed with a key", function()
  local web = with_key {}
  test.equal(web:get("/", bearer "rs256").status, 200)
  test.equal(web:get("/", bearer "rs512").status, 200)
  for _, name in ipairs { "good", "none", "confused" } do test.equal(web:get("/", bearer(name)).status, 401, name) end
  local head, body, signature = tokens.rs256:match("^(.-)%.(.-)%.(.*)$")
  local changed = head .. "." .. body .. "." .. (signature:sub(1, 1) == "A" and "B" or "A") .. signature:sub(2)
  test.equal(web:get("/", { authorization = "Bearer " .. changed }).status, 401)
  test.equal(web:get("/", { authorization = "Bearer " .. head .. "." .. body .. "." .. tokens.rs512:match("[^.]*$") }).status, 401)
end)

test("a token in a cookie, where no field brings one", function()
  local web = world { cookie = "token" }
  test.equal(web:get("/", { cookie = "token=" .. tokens.good }).status, 200)
  test.equal(web:get("/", { cookie = "token=" .. tokens.good, authorization = "Basic eDp5" }).status, 401)
end)

test("a client cannot bring what a token would say", function()
  local web = world { claims = "sub=x-user", paths = "/admin/" }
  test.equal(web:get("/", { ["x-user"] = "root" }).forwarded.headers["x-user"], nil)
  test.equal(web:get("/admin/").status, 401)
  test.equal(web:get("/x/..%2fadmin/").status == 200, false)
  local headers = bearer "evil"
  local answer = world({ claims = "sub=x-user" }):get("/", headers)
  test.equal(answer.status, 200)
  test.equal(answer.forwarded.headers["x-admin"], nil)
  test.equal(answer.forwarded.headers["x-user"], nil)
end)

test("settings that make no sense are told", function()
  test.error(function() test.script("jwt.lua") end, "is required")
  test.error(function() world { secret = "short" } end, "less than 32 bytes")
  test.error(function() world { key = test.file("no.pem", "no key") } end, "no public key or certificate")
  test.error(function() world { key = test.file("short.pem", SHORT_KEY) } end, "at least 2048 bits")
  test.error(function() world { key = "/nowhere/at/all.pem" } end, "all.pem")
  test.error(function() world { claims = "sub" } end, "expected CLAIM=NAME")
end)
