-- SPDX-License-Identifier: BSD-2-Clause
-- Keeps small answers to GET requests in a shared dictionary, for all workers: those that say themselves for how long
-- anybody may keep them (RFC 9111: Cache-Control, Age), and nothing else. It needs lua-cjson.
--
--   shared pages 64m;                                  # at the top of the configuration
--   script cache.lua dict=pages max_size=65536 max_age=60;
--
-- Settings:
--   dict=NAME            the shared dictionary. Required
--   max_size=BYTES       of a body that is kept: 65536 by default, at most script_body_limit
--   max_age=SECONDS      no answer is kept for longer, 300 by default
--   ignore="NAME ..."    arguments of the query that make no difference, such as utm_source
--   paths="PREFIX ..."   only these paths; all by default
-- Not kept, and not served from here: requests with Authorization, Range, conditions or a body, other methods than GET
-- (HEAD is served), answers with Set-Cookie or Vary (but for Accept-Encoding, whose values are kept apart).
-- Cache-Control: no-cache or no-store of a request goes past the cache. The field x-cache says hit or miss.
local gate = require "moongate"
local settings = gate.settings(..., {
  dict = "string", max_size = "number", max_age = "number", ignore = "list", paths = "list",
})

local pages = gate.shared(settings.dict or error("the setting dict=NAME is required"))
local max_size, max_age, paths = settings.max_size or 65536, settings.max_age or 300, settings.paths
local ignored = {}
for _, name in ipairs(settings.ignore or {}) do ignored[name] = true end

-- Statuses that may be kept at all, when they say for how long.
local kept = { [200] = true, [203] = true, [301] = true, [308] = true, [404] = true, [410] = true }
local conditions = { "authorization", "range", "if-match", "if-unmodified-since", "if-range", "if-none-match",
  "if-modified-since" }
-- What belongs to one connection or one answer.
local dropped = { connection = true, ["keep-alive"] = true, te = true, trailer = true, ["transfer-encoding"] = true,
  upgrade = true, ["content-length"] = true, age = true, ["proxy-authenticate"] = true, ["x-cache"] = true }

local function directives(text)
  local found = {}
  for name, value in (text or ""):lower():gmatch("([%w-]+)%s*=?%s*\"?([%w-]*)") do found[name] = value end
  return found
end

local function concerned(path)
  if not paths then return true end
  for i = 1, #paths do
    if path:sub(1, #paths[i]) == paths[i] then return true end
  end
  return false
end

-- Each part with its length, so that no two requests have the same key.
local function key_of(req)
  local query = req.query
  if query and next(ignored) then
    local parts = {}
    for part in query:gmatch("[^&]+") do
      if not ignored[gate.query.unescape(part:match("^[^=]*"))] then parts[#parts + 1] = part end
    end
    query = #parts > 0 and table.concat(parts, "&") or nil
  end
  local coding = req.headers["accept-encoding"] or ""
  local parts = { req.scheme, req.host, tostring(req.port), req.raw_path, query and "?" .. query or "", coding }
  for i = 1, #parts do parts[i] = #parts[i] .. ":" .. parts[i] end
  return "page:" .. gate.hex.encode(gate.sha256(table.concat(parts)))
end

-- For how many seconds a response may be kept by a cache that many share; 0: not at all.
local function lifetime(req, res)
  local headers = res.headers
  local says = directives(headers["cache-control"])
  local vary = (headers.vary or ""):lower()
  if not kept[res.status] or headers["set-cookie"] or says["no-store"] or says.private or says["no-cache"] then return 0 end
  if vary ~= "" and vary ~= "accept-encoding" then return 0 end
  local seconds = tonumber(says["s-maxage"] or says["max-age"])
  if not seconds then return 0 end
  return math.min(seconds - (tonumber(headers.age) or 0), max_age)
end

local hooks = {}

function hooks.request(req)
  local headers = req.headers
  if (req.method ~= "GET" and req.method ~= "HEAD") or not concerned(req.path) then return end
  if headers["content-length"] or headers["transfer-encoding"] or headers.upgrade then return end
  for i = 1, #conditions do
    if headers[conditions[i]] then return end
  end
  local wants = directives(headers["cache-control"])
  if wants["no-store"] then return end
  local key = key_of(req)
  local page = not wants["no-cache"] and wants["max-age"] ~= "0" and pages:get(key)
  page = page and gate.json.decode(page)
  if not page then
    if req.method == "GET" then req.ctx.cache_key = key end
    return
  end
  local fields = {}
  for name, values in pairs(page.fields) do fields[name] = values end
  fields.age = math.max(0, math.floor(gate.now() - page.since))
  fields["x-cache"] = "hit"
  return req:respond(page.status, fields, gate.base64.decode(page.body))
end

function hooks.response(req, res)
  local key = req.ctx.cache_key
  if not key then return end
  res.headers["x-cache"] = "miss"
  local seconds = lifetime(req, res)
  if seconds <= 0 then return end
  local body = res:read_body(max_size)
  if not body then return end
  local fields = {}
  for name in res.headers:each() do
    local lower = name:lower()
    if not dropped[lower] then fields[lower] = res.headers:all(name) end
  end
  -- A full dictionary lets go of the oldest by itself; what does not fit at all is not kept.
  local ok, why = pcall(pages.set, pages, key, gate.json.encode {
    status = res.status, fields = fields, body = gate.base64.encode(body),
    since = gate.now() - (tonumber(res.headers.age) or 0),
  }, seconds)
  if not ok then gate.log.info("not kept:", why) end
end

return hooks
