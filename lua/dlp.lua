-- SPDX-License-Identifier: BSD-2-Clause
-- Keeps what must not leave (or come in) out of bodies: card numbers, private keys, a pattern of one's own, and bodies
-- beyond a size. Found also where a text lies across the pieces in which a body arrives.
--
--   script dlp.lua find="cards keys" response=mask max_request=1000000;
--
-- Settings, all of them optional:
--   find="NAME ..."      cards: numbers of 13 to 19 digits, in groups or not, with the right check digit; keys:
--                        the first line of a private key in PEM
--   pattern="PATTERN"    one more, in Lua's language of patterns; it must not fit an empty text
--   longest=BYTES        how long a text may be that a pattern finds, 256 by default: so much of a body is held back
--   request=ACTION       what becomes of a request whose body has it: off (the default: nobody looks), mask (each
--                        byte becomes "*") or block (answered 403, the server does not get it whole)
--   response=ACTION      the same for responses; block (the default) cuts them off: what was sent before is out already
--   types="TYPE ..."     bodies that are looked at, by the beginning of their Content-Type: "text/ application/json
--                        application/xml application/x-www-form-urlencoded" by default; "*" for all
--   max_request=BYTES    a longer request body is answered 413
--   max_response=BYTES   a longer response body is cut off
--
-- Compressed bodies cannot be looked at. Servers are not offered compression where responses are looked at, nor asked
-- for ranges of them; a request or a response that comes with a Content-Encoding all the same is refused (415, 502).
local gate = require "moongate"
local settings = gate.settings(..., {
  find = "list", pattern = "string", longest = "number", request = "string", response = "string", types = "list",
  max_request = "number", max_response = "number",
})

local longest = settings.longest or 256
if longest < 24 then error("longest must be at least 24") end

local actions = { off = true, mask = true, block = true }
local function action_of(name, default)
  local action = settings[name] or default
  if not actions[action] then error(name .. '="' .. action .. '": expected off, mask or block') end
  return action
end
local on_request, on_response = action_of("request", "off"), action_of("response", "block")

-- The check digit of ISO/IEC 7812, over the digits of a text.
local function is_card(text)
  local digits = text:gsub("%D", "")
  if #digits < 13 or #digits > 19 then return false end
  local sum = 0
  for i = 1, #digits do
    local digit = digits:byte(-i) - 48
    if i % 2 == 0 then digit = digit > 4 and digit * 2 - 9 or digit * 2 end
    sum = sum + digit
  end
  return sum % 10 == 0 and digits:find("[^0]") ~= nil
end

-- Where a card's number stands: whole groups of digits, parted by one space or hyphen; other numbers may follow.
local function find_card(text, from)
  local at = from
  while true do
    local start = text:find("%f[%d]%d", at)
    if not start then return nil end
    local window = text:sub(start, start + 37)
    local stop, group = 0, window:match("^%d+()")
    while group do
      local ends = group - 1
      if (ends < #window or #text == start + ends - 1) and is_card(window:sub(1, ends)) then stop = ends end
      group = window:match("^[%- ]%d+()", group)
    end
    if stop > 0 then return start, start + stop - 1 end
    at = text:find("%D", start)
    if not at then return nil end
  end
end

local function finder(pattern)
  return function(text, from) return text:find(pattern, from) end
end

local known = { cards = find_card, keys = finder("%-%-%-%-%-BEGIN [%u ]*PRIVATE KEY%-%-%-%-%-") }
local rules = {}
for _, name in ipairs(settings.find or {}) do
  rules[#rules + 1] = known[name] or error('find: unknown "' .. name .. '", expected cards or keys')
end
if settings.pattern then
  local ok, first = pcall(string.find, "", settings.pattern)
  if not ok then error("pattern: " .. first) end
  if first then error("pattern: it fits an empty text") end
  rules[#rules + 1] = finder(settings.pattern)
end

local types = settings.types
  or { "text/", "application/json", "application/xml", "application/x-www-form-urlencoded" }

local function looked_at(headers)
  local media = (headers["content-type"] or ""):lower()
  for i = 1, #types do
    if types[i] == "*" or media:sub(1, #types[i]) == types[i] then return true end
  end
  return false
end

local function encoded(headers)
  local coding = headers["content-encoding"]
  return coding and coding:lower() ~= "identity"
end

-- Goes through what the rules find in a text, in order. Each rule looks on only when what it found last was passed.
local function finds(text)
  local starts, stops = {}, {}
  return function(from)
    local best
    for i = 1, #rules do
      if starts[i] == nil or (starts[i] and starts[i] < from) then
        starts[i], stops[i] = rules[i](text, from)
        starts[i] = starts[i] or false
      end
      if starts[i] and (not best or starts[i] < starts[best]) then best = i end
    end
    if best then return starts[best], stops[best] end
  end
end

-- Reads a body and writes it on, all but its last `longest` bytes, in which a text may begin whose end has not come.
local function filter(message, action, most, status)
  local size, held, look = 0, "", action ~= "off" and #rules > 0 and looked_at(message.headers)
  if not look and not most then return message:pass() end
  for chunk in message:body() do
    size = size + #chunk
    if most and size > most then return message:abort(status.size) end
    if not look then
      message:write(chunk)
    else
      local text = held .. chunk
      local at, safe, next_find = 1, #text - longest, finds(text)
      while at <= safe do
        local first, last = next_find(at)
        if not first or first > safe then break end
        if action == "block" then return message:abort(status.found) end
        message:write(text:sub(at, first - 1) .. ("*"):rep(last - first + 1))
        at = last + 1
      end
      if at <= safe then
        message:write(text:sub(at, safe))
        at = safe + 1
      end
      held = text:sub(at)
    end
  end
  local at, next_find = 1, finds(held)
  while look do
    local first, last = next_find(at)
    if not first then break end
    if action == "block" then return message:abort(status.found) end
    message:write(held:sub(at, first - 1) .. ("*"):rep(last - first + 1))
    at = last + 1
  end
  if at <= #held then message:write(held:sub(at)) end
end

local hooks = {}

local responses = on_response ~= "off" and #rules > 0

if responses or (on_request ~= "off" and #rules > 0) then
  function hooks.request(req)
    if responses then
      req.headers["accept-encoding"] = nil
      req.headers["range"] = nil
    end
    if on_request ~= "off" and encoded(req.headers) and looked_at(req.headers) then
      return req:respond(415, { ["content-type"] = "text/plain", ["accept-encoding"] = "identity" }, "not compressed\n")
    end
  end
end

if (on_request ~= "off" and #rules > 0) or settings.max_request then
  function hooks.request_body(req)
    return filter(req, on_request, settings.max_request, { found = 403, size = 413 })
  end
end

if responses then
  function hooks.response(req, res)
    if encoded(res.headers) and looked_at(res.headers) then
      return req:respond(502, { ["content-type"] = "text/plain" }, "the answer is compressed\n")
    end
  end
end

if responses or settings.max_response then
  function hooks.response_body(_, res)
    return filter(res, on_response, settings.max_response, { found = 502, size = 502 })
  end
end

return hooks
