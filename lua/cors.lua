-- SPDX-License-Identifier: BSD-2-Clause
-- Lets pages of other origins use this site from browsers (CORS, as the Fetch standard has it), and answers their
-- questions beforehand itself.
--
--   script cors.lua origins="https://app.example.org https://*.example.com" credentials=on;
--
-- Settings:
--   origins="ORIGIN ..." which ones: https://host[:port]; "*." stands for every name below; "*" is any. Required
--   methods="NAME ..."   methods that they may use: "GET HEAD POST" by default
--   headers="NAME ..."   fields that they may send, beside the simple ones; none by default
--   expose="NAME ..."    fields of a response that they may read; none by default
--   credentials=on|off   whether cookies come along; off by default, and not with "*"
--   max_age=SECONDS      how long browsers keep an answer, 600 by default
-- What a server says of the matter itself is taken out.
local gate = require "moongate"
local settings = gate.settings(..., {
  origins = "list", methods = "list", headers = "list", expose = "list", credentials = "boolean", max_age = "number",
})

if not settings.origins or #settings.origins == 0 then error('the setting origins="ORIGIN ..." is required') end
local exact, below, any = {}, {}, false
for _, origin in ipairs(settings.origins) do
  local scheme, rest = origin:lower():match("^(https?://)%*(%.[%w.:-]+)$")
  if origin == "*" then
    any = true
  elseif scheme then
    below[#below + 1] = { scheme = scheme, rest = rest }
  elseif origin:find("^https?://[%w.:%[%]-]+$") then
    exact[origin:lower()] = true
  else
    error('origins: "' .. origin .. '" is none: expected https://host[:port], without a path')
  end
end
if any and settings.credentials then error('credentials=on is not for origins="*": name them') end

local methods = table.concat(settings.methods or { "GET", "HEAD", "POST" }, ", ")
local headers = settings.headers and table.concat(settings.headers, ", ")
local expose = settings.expose and table.concat(settings.expose, ", ")
local max_age = settings.max_age or 600

local function allowed(origin)
  if any or exact[origin] then return true end
  for i = 1, #below do
    local one = below[i]
    local name = #origin > #one.scheme + #one.rest and origin:sub(1, #one.scheme) == one.scheme
      and origin:sub(-#one.rest) == one.rest and origin:sub(#one.scheme + 1, -#one.rest - 1)
    if name and name:find("^[%w.-]+$") then return true end
  end
  return false
end

-- What a response says to a page of that origin; a cache must keep the answers apart (Vary).
local function fields(origin, ok)
  local to = { vary = not any and "origin" or nil }
  if not ok then return to end
  to["access-control-allow-origin"] = any and "*" or origin
  to["access-control-allow-credentials"] = settings.credentials and "true" or nil
  return to
end

local hooks = {}

function hooks.request(req)
  local origin = req.headers.origin
  if req.method ~= "OPTIONS" or not origin or not req.headers["access-control-request-method"] then return end
  local ok = allowed(origin:lower())
  local answer = fields(origin, ok)
  if ok then
    answer["access-control-allow-methods"] = methods
    answer["access-control-allow-headers"] = headers
    answer["access-control-max-age"] = max_age
  end
  return req:respond(204, answer)
end

local function add(req, res)
  local origin = req.headers.origin
  local all = res.headers
  local remove = {}
  for name in all:each() do
    if name:lower():sub(1, 15) == "access-control-" then remove[#remove + 1] = name end
  end
  for i = 1, #remove do all[remove[i]] = nil end
  local answer = fields(origin, origin and allowed(origin:lower()))
  if answer.vary then all:add("vary", "origin") end
  answer.vary = nil
  for name, value in pairs(answer) do all[name] = value end
  if expose and answer["access-control-allow-origin"] then all["access-control-expose-headers"] = expose end
end
hooks.response = add
hooks.error = add

return hooks
