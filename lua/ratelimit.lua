-- SPDX-License-Identifier: BSD-2-Clause
-- Limits how many requests a client may make in a second, with a token bucket each; what is too much is
-- answered 429 and told when to come again (Retry-After).
--
--   shared limits 16m;                                 # at the top of the configuration
--   script ratelimit.lua rate=10 burst=50;             # in a frontend
--
-- Settings:
--   rate=NUMBER          requests a second, in the long run; fractions are allowed (0.1: one in ten seconds).
--                        Required
--   burst=NUMBER         requests that may come at once; as many as rate by default, at least 1
--   by=address           whose requests are counted together: those of one address (the default),
--   by=header:NAME       or of one value of a header field, such as an API key; without the field, of the
--                        address
--   prefix4=BITS         addresses of one network count as one: 32 by default
--   prefix6=BITS         64 by default, for that is what one customer usually has
--   dict=NAME            the shared dictionary, "limits" by default
--   zone=NAME            what keys begin with: scripts with the same zone share their buckets. "rate" by
--                        default
--   paths="PREFIX ..."   only these paths are limited
--   except="NET ..."     clients of these networks are not limited
--   status=NUMBER        of the answer, 429 by default
local gate = require "moongate"
local settings = gate.settings(..., {
  rate = "number", burst = "number", by = "string", prefix4 = "number", prefix6 = "number", dict = "string",
  zone = "string", paths = "list", except = "list", status = "number",
})

local rate = settings.rate or error("the setting rate=NUMBER (requests a second) is required")
if rate <= 0 then error("rate must be above 0") end
local burst = settings.burst or math.max(rate, 1)
if burst < 1 then error("burst must be at least 1") end
local status = settings.status or 429
local bits4, bits6 = settings.prefix4 or 32, settings.prefix6 or 64
local limits = gate.shared(settings.dict or "limits")
local zone = (settings.zone or "rate") .. ":"
local except = settings.except and gate.cidr(settings.except)
local paths = settings.paths

gate.network("192.0.2.1", bits4, bits6)  -- raises here, not at the first request, if the bits make no sense

local header
if settings.by and settings.by ~= "address" then
  header = settings.by:match("^header:(.+)$")
    or error('by="' .. settings.by .. '": expected address or header:NAME')
end

local function limited(path)
  for i = 1, #paths do
    if path:sub(1, #paths[i]) == paths[i] then return true end
  end
  return false
end

-- The key of an address is the same for the whole connection.
local function address_key(conn)
  local key = conn.ctx.ratelimit_key
  if not key then
    key = zone .. (gate.network(conn.remote_ip, bits4, bits6) or conn.remote_ip)
    conn.ctx.ratelimit_key = key
  end
  return key
end

local hooks = {}

function hooks.request(req)
  if paths and not limited(req.path) then return end
  local conn = req.conn
  if except and except:contains(conn.remote_ip) then return end
  local key
  local value = header and req.headers[header]
  if value then
    -- Keys have 250 bytes at most; what is longer counts by its hash.
    key = zone .. "=" .. (#value <= 200 and value or gate.hash(value))
  else
    key = address_key(conn)
  end
  local ok, wait = limits:take(key, rate, burst)
  if not ok then
    return req:respond(status, { ["retry-after"] = math.ceil(wait), ["content-type"] = "text/plain" },
      "too many requests\n")
  end
end

return hooks
