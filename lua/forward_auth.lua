-- SPDX-License-Identifier: BSD-2-Clause
-- Asks another service whether a request may pass: it gets the request's head and answers 2xx for yes; any other
-- answer goes to the client, with its body and cookies. When the service cannot be asked nobody passes.
--
--   script forward_auth.lua url=http://127.0.0.1:9091/verify copy="x-user x-groups" except="/health";
--
-- Settings:
--   url=URL              what is asked, http://host[:port]/path; with upstream= a path alone. Required
--   upstream=NAME        an upstream of the configuration to ask, for its pool, retries and limits
--   send="NAME ..."      fields of the request that the service gets: "authorization cookie" by default
--   copy="NAME ..."      fields of its answer that the server gets; a client's own of these names are taken out
--   timeout=SECONDS      5 by default
--   cache=SECONDS        how long a yes holds for the same fields, method, host and target; 0, the default, asks each time
--   dict=NAME            the shared dictionary for that
--   except="PREFIX ..."  paths that pass without being asked about
-- It also gets x-forwarded-method, x-forwarded-proto, x-forwarded-host, x-forwarded-uri and x-forwarded-for.
local gate = require "moongate"
local settings = gate.settings(..., {
  url = "string", upstream = "string", send = "list", copy = "list", timeout = "number", cache = "number",
  dict = "string", except = "list",
})

local url = settings.url or error("the setting url=URL is required")
local send, copy = settings.send or { "authorization", "cookie" }, settings.copy or {}
local timeout, seconds = settings.timeout or 5, settings.cache or 0
if seconds > 0 and not settings.dict then error("cache=SECONDS needs dict=NAME") end
local dict = settings.dict and gate.shared(settings.dict)
local except = settings.except or {}
-- What goes back to the client beside the body when the answer is no.
local told = { "content-type", "location", "www-authenticate", "set-cookie", "cache-control" }

-- Only when every reading of the path is let through: one may lead a server elsewhere.
local function excepted(req)
  if #except == 0 then return false end
  for _, path in ipairs(req.readings) do
    local found = false
    for i = 1, #except do found = found or path:sub(1, #except[i]) == except[i] end
    if not found then return false end
  end
  return true
end

local function question(req)
  local headers = {
    ["x-forwarded-method"] = req.method, ["x-forwarded-proto"] = req.scheme, ["x-forwarded-host"] = req.host,
    ["x-forwarded-uri"] = req.target, ["x-forwarded-for"] = req.conn.remote_ip,
  }
  for i = 1, #send do headers[send[i]:lower()] = req.headers[send[i]] end
  return headers
end

-- A key for the answer to a question: each part with its length, so that no two questions have the same.
local function key_of(headers)
  local names, parts = {}, {}
  for name in pairs(headers) do names[#names + 1] = name end
  table.sort(names)
  for i, name in ipairs(names) do parts[i] = #name .. ":" .. name .. #headers[name] .. ":" .. headers[name] end
  return "auth:" .. gate.hex.encode(gate.sha256(table.concat(parts)))
end

local hooks = {}

function hooks.request(req)
  local headers = question(req)
  for i = 1, #copy do req.headers[copy[i]] = nil end
  if excepted(req) then return end
  local key = seconds > 0 and key_of(headers)
  local kept = key and dict:get(key)
  if kept then
    for name, value in pairs(gate.query.parse(kept)) do req.headers[name] = value end
    return
  end
  local answer, why = gate.fetch(url, { headers = headers, timeout = timeout, upstream = settings.upstream })
  if not answer or answer.status >= 500 then
    gate.log.error("the service cannot be asked:", why or answer.status)
    return req:respond(503, { ["content-type"] = "text/plain" }, "not now\n")
  end
  if answer.status < 200 or answer.status > 299 then
    local fields = {}
    for i = 1, #told do fields[told[i]] = answer.fields[told[i]] end
    return req:respond(answer.status, fields, answer.status ~= 304 and answer.body or nil)
  end
  local given = {}
  for i = 1, #copy do
    given[copy[i]] = answer.headers[copy[i]:lower()]
    req.headers[copy[i]] = given[copy[i]]
  end
  if key then
    -- "" would read as if there were none; a name alone is an empty field that nobody asks for.
    dict:set(key, next(given) and gate.query.build(given) or "x-checked=1", seconds)
  end
end

return hooks
