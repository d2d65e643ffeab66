-- SPDX-License-Identifier: BSD-2-Clause
-- Tests of basic_auth.lua: moongate --test basic_auth_test.lua
local test = require "moongate.test"

-- printf %s 'k3v9moon:light' | sha256sum
local DIANA = "diana:k3v9$9a159e58d3770219113347d85a9c6de182cc7da377210289ead5457daf27de6f"

local function base64(text)
  local letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
  local out = {}
  for at = 1, #text, 3 do
    local a, b, c = text:byte(at, at + 2)
    local n = a * 65536 + (b or 0) * 256 + (c or 0)
    for i = 3, 0, -1 do
      local digit = math.floor(n / 64 ^ i) % 64
      local there = i >= 2 or (i == 1 and b) or (i == 0 and c)
      out[#out + 1] = there and letters:sub(digit + 1, digit + 1) or "="
    end
  end
  return table.concat(out)
end
local function basic(name, password) return { authorization = "Basic " .. base64(name .. ":" .. password) } end

local function world(settings, options)
  settings.user = settings.user or DIANA
  return test.script("basic_auth.lua", settings, options)
end

test("without a password the client is asked for one", function()
  local answer = world({ realm = 'The "office"' }):get("/")
  test.equal(answer.status, 401)
  test.equal(answer.headers["www-authenticate"], 'Basic realm="The office", charset="UTF-8"')
  test.equal(answer.upstream, nil)
end)

test("with the right one the server learns the name, and not the password", function()
  local answer = world({}):get("/", basic("diana", "moon:light"))
  test.equal(answer.status, 200)
  test.equal(answer.forwarded.headers["x-user"], "diana")
  test.equal(answer.forwarded.headers.authorization, nil)
  test.truthy(world({ keep = "on" }):get("/", basic("diana", "moon:light")).forwarded.headers.authorization)
end)

test("wrong ones and other schemes are refused", function()
  local web = world {}
  for _, headers in ipairs { basic("diana", "sun"), basic("diana", ""), basic("luna", "moon:light"), basic("", ""),
    basic("nobody", ""), { authorization = "Basic !!!" }, { authorization = "Basic" },
    { authorization = "Bearer " .. base64("diana:moon:light") } } do
    test.equal(web:get("/", headers).status, 401, headers.authorization)
  end
end)

test("a client cannot name itself", function()
  local web = world { paths = "/admin/" }
  test.equal(web:get("/", { ["x-user"] = "diana" }).forwarded.headers["x-user"], nil)
  test.equal(web:get("/admin/").status, 401)
  test.equal(web:get("//admin/").status == 200, false)
  test.equal(web:get("/x/..%2fadmin/").status == 200, false)
end)

test("guessing is slowed down", function()
  local web = world({ limits = "guesses" }, { shared = { guesses = "1m" } })
  for _ = 1, 10 do test.equal(web:get("/", basic("diana", "x")).status, 401) end
  test.equal(web:get("/", basic("diana", "x")).status, 429)
  test.equal(web:get("/", basic("diana", "moon:light")).status, 429, "a right guess does not show")
  test.equal(web:request { from = "198.51.100.7", headers = basic("diana", "moon:light") }.status, 200)
  test.advance(6.1)
  test.equal(web:get("/", basic("diana", "x")).status, 401)
  test.equal(web:get("/", basic("diana", "x")).status, 429)
  test.advance(6.1)
  test.equal(web:get("/", basic("diana", "moon:light")).status, 200)
end)

test("names come from a module", function()
  test.file("staff.lua", 'return { luna = "s$be18b85f77fc024db379acf19e8a1ce62307ab7bb1bca395389ecfc2dafaf741" }')
  local web = test.script("basic_auth.lua", { users = "staff" })
  test.equal(web:get("/", basic("luna", "p")).forwarded.headers["x-user"], "luna")
end)

test("settings that make no sense are told", function()
  test.error(function() test.script("basic_auth.lua") end, "is required")
  test.error(function() world { user = "diana" } end, "expected NAME:SALT")
  test.error(function() world { user = "diana:secret" } end, "is none")
end)
