-- SPDX-License-Identifier: BSD-2-Clause
-- Tests of dlp.lua: moongate --test dlp_test.lua
local test = require "moongate.test"

local CARD = "4111 1111 1111 1111"
local TEXT = { ["content-type"] = "text/plain" }

-- The text in pieces of so many bytes, as a list.
local function cut(text, size)
  local pieces = {}
  for at = 1, #text, size do pieces[#pieces + 1] = text:sub(at, at + size - 1) end
  return pieces
end

local function answers(settings, body, headers)
  local web = test.script("dlp.lua", settings)
  test.upstream("origin", { body = body, headers = headers or TEXT })
  return web:get("/")
end

local function posts(settings, body, headers)
  local web = test.script("dlp.lua", settings)
  return web:request { method = "POST", target = "/", body = body, headers = headers or TEXT }
end

test("a card is masked wherever the pieces of a body are cut", function()
  local before, behind = ("x"):rep(300) .. " ", " " .. ("y"):rep(400)
  local web = test.script("dlp.lua", { find = "cards", response = "mask" })
  for size = 1, 40 do
    test.upstream("origin", { body = cut(before .. CARD .. behind .. CARD, size), headers = TEXT })
    test.equal(web:get("/").body, before .. ("*"):rep(19) .. behind .. ("*"):rep(19), "pieces of " .. size)
  end
end)

test("numbers that are no cards stay", function()
  local text = "4111 1111 1111 1112, 123456789012, 0000000000000, 41111111111111111111111, +49 30 1234567"
  test.equal(answers({ find = "cards", response = "mask" }, text).body, text)
  test.equal(answers({ find = "cards", response = "mask" }, "4111-1111-1111-1111").body, ("*"):rep(19))
  test.equal(answers({ find = "cards", response = "mask" }, "1 4111111111111111 12 27").body, "1 " .. ("*"):rep(16) .. " 12 27")
  test.equal(answers({ find = "cards", response = "mask" }, "4111 1111 1111 1111 123").body, ("*"):rep(19) .. " 123")
end)

test("a response with a private key is cut off", function()
  local answer = answers({ find = "keys" }, { ("x"):rep(1000), "-----BEGIN RSA PRI", "VATE KEY-----\nMII" })
  test.truthy(answer.aborted)
  test.equal(answer.status, 200)
  test.falsy(answer.body:find("BEGIN", 1, true))
  test.equal(answer.termination, "script_abort")
end)

test("a short response with one is an error", function()
  local answer = answers({ find = "keys" }, "-----BEGIN PRIVATE KEY-----")
  test.truthy(answer.aborted or answer.status == 502)
  test.equal(answer.body:find("PRIVATE", 1, true), nil)
end)

test("what is harmless passes unchanged", function()
  local text = ("a moon gate is a round opening\n"):rep(5000)
  test.equal(answers({ find = "cards keys", response = "mask", pattern = "secret%-%d+" }, cut(text, 9000)).body, text)
end)

test("a pattern of one's own is found at the very end, too", function()
  test.equal(answers({ pattern = "secret%-%d+", response = "mask" }, { "a sec", "ret-1", "23" }).body, "a **********")
end)

test("a request is blocked", function()
  local answer = posts({ find = "cards", request = "block" }, cut("my card is " .. CARD, 5))
  test.equal(answer.status, 403)
  test.falsy(answer.forwarded.complete)
end)

test("a request is masked, with its framing", function()
  local answer = posts({ find = "cards", request = "mask" }, "card=" .. CARD .. "&name=x",
    { ["content-type"] = "application/x-www-form-urlencoded" })
  test.equal(answer.status, 200)
  test.equal(answer.forwarded.body, "card=" .. ("*"):rep(19) .. "&name=x")
  test.equal(answer.forwarded.headers["content-length"], nil)
end)

test("other types pass as they are", function()
  local answer = answers({ find = "cards" }, CARD, { ["content-type"] = "image/png", etag = '"1"' })
  test.equal(answer.body, CARD)
  test.equal(answer.headers["content-length"], "19")
  test.equal(answer.headers.etag, '"1"')
  test.equal(answers({ find = "cards", types = "*", response = "mask" }, CARD, {}).body, ("*"):rep(19))
end)

test("servers are not offered compression, and refused with it", function()
  local web = test.script("dlp.lua", { find = "cards", request = "block" })
  local answer = web:get("/", { ["accept-encoding"] = "gzip", range = "bytes=0-5" })
  test.equal(answer.forwarded.headers["accept-encoding"], nil)
  test.equal(answer.forwarded.headers["range"], nil)
  test.upstream("origin", { body = "?", headers = { ["content-encoding"] = "gzip", ["content-type"] = "text/html" } })
  test.equal(web:get("/").status, 502)
  answer = web:request { method = "POST", target = "/", body = "?",
    headers = { ["content-encoding"] = "gzip", ["content-type"] = "text/html" } }
  test.equal(answer.status, 415)
end)

test("a body beyond its size is refused or cut off", function()
  test.equal(posts({ max_request = 10 }, { "12345", "67890" }).status, 200)
  local refused = posts({ max_request = 10 }, { "12345", "67890", "1" })
  test.equal(refused.status, 413)
  test.falsy(refused.forwarded.complete)
  test.equal(answers({ max_response = 10 }, { "12345", "67890" }).body, "1234567890")
  local answer = answers({ max_response = 10 }, { "12345", 0.1, "67890", 0.1, "1" })
  test.equal(answer.body, "12345")
  test.advance(1)
  test.equal(answer.body, "1234567890")
  test.truthy(answer.aborted)
end)

test("settings that make no sense are told", function()
  test.error(function() test.script("dlp.lua", { find = "cats" }) end, 'unknown "cats"')
  test.error(function() test.script("dlp.lua", { pattern = "x*" }) end, "fits an empty text")
  test.error(function() test.script("dlp.lua", { pattern = "[" }) end, "pattern: ")
  test.error(function() test.script("dlp.lua", { response = "maybe" }) end, "expected off, mask or block")
  test.error(function() test.script("dlp.lua", { longest = 5 }) end, "at least 24")
end)
