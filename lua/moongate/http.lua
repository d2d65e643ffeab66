-- SPDX-License-Identifier: BSD-2-Clause
-- gate.query, gate.cookie and req.cookies: the small languages inside of header fields and URLs.
local core = ...

local gate, C, ffi = core.parts.gate, core.parts.C, core.parts.ffi
local fail, wrong, raise, text_of = core.parts.fail, core.parts.wrong, core.parts.raise, core.parts.text_of
local request_get = core.parts.request_get
local type, tostring, pairs, ipairs, setmetatable = type, tostring, pairs, ipairs, setmetatable
local sort, concat, floor, ffi_string = table.sort, table.concat, math.floor, ffi.string
local OK, NONE, STALE, PERCENT = ffi.C.MG_OK, ffi.C.MG_NONE, ffi.C.MG_STALE, ffi.C.MG_PERCENT
local TOKEN, COOKIE_VALUE, ATTRIBUTE =
  ffi.C.MG_IS_TOKEN, ffi.C.MG_IS_COOKIE_VALUE, ffi.C.MG_IS_COOKIE_ATTRIBUTE
local c_encode, c_decode, c_check = C.text_encode, C.text_decode, C.text_check
local c_query_next, c_cookie_next, c_request_cookie = C.query_next, C.cookie_next, C.request_cookie
local out, out_name = ffi.new("struct mg_text"), ffi.new("struct mg_text")
local out_position = ffi.new("uint32_t[1]")

-- ---- query strings ----------------------------------------------------------------------------------------

gate.query = {}

local function escape(text)
  local result = c_encode(PERCENT, text, #text, out)
  if result ~= OK then fail(result) end
  local escaped = ffi_string(out.at, out.len)
  return escaped
end

--- gate.query.escape(text)
--- @return the text with all bytes but letters, digits and -._~ percent-encoded (RFC 3986, 2.1): for one name
--- or value of a query, or one segment of a path
--- @example
---   local text = gate.query.escape("a b&c/ü")            -- "a%20b%26c%2F%C3%BC"
function gate.query.escape(text)
  text = text_of(text, "gate.query.escape")
  local escaped = escape(text)
  return escaped
end

--- gate.query.unescape(text)
--- @return the text decoded as req.args does it: "+" is a space, and a "%" that begins no escape stands for
--- itself
--- @example
---   local text = gate.query.unescape("a+b%26c")          -- "a b&c"
function gate.query.unescape(text)
  if type(text) ~= "string" then wrong("gate.query.unescape", "a string", text) end
  local result = c_decode(PERCENT, text, #text, out)
  if result ~= OK then fail(result) end
  local decoded = ffi_string(out.at, out.len)
  return decoded
end

--- gate.query.parse(text, limit)
--- Reads a query string, or the body of a form (application/x-www-form-urlencoded).
--- @return a table of names and values, decoded: a value is a string, "" for a name alone, and a table of
--- strings for a name that is repeated. Second, true if there were more than `limit` pairs (1000 if left
--- out): those behind it are left out
--- @example
---   local args = gate.query.parse("page=2&tag=a&tag=b%20c")
---   local tag  = args.tag[2]                             -- "b c"
function gate.query.parse(text, limit)
  if type(text) ~= "string" then wrong("gate.query.parse", "a string", text) end
  limit = limit or 1000
  if type(limit) ~= "number" then wrong("gate.query.parse", "a limit as a number", limit) end
  local args, count, position = {}, 0, 0
  while true do
    out_position[0] = position
    local result = c_query_next(text, #text, out_position, out_name, out)
    if result == NONE then return args, false end
    if result ~= OK then fail(result) end
    if count >= limit then return args, true end
    count = count + 1
    position = out_position[0]
    local name, value = ffi_string(out_name.at, out_name.len), ffi_string(out.at, out.len)
    local there = args[name]
    if there == nil then
      args[name] = value
    elseif type(there) == "table" then
      there[#there + 1] = value
    else
      args[name] = { there, value }
    end
  end
end

--- gate.query.build(args)
--- @return a query string of a table of names and values, encoded and sorted by name: a value is a string, a
--- number, true (the name alone), or a table of them for a name that is repeated
--- @error for a value of another type
--- @example
---   local query = gate.query.build { tag = { "a", "b c" }, page = 2 }   -- "page=2&tag=a&tag=b%20c"
function gate.query.build(args)
  if type(args) ~= "table" then wrong("gate.query.build", "a table", args) end
  local names, parts = {}, {}
  for name in pairs(args) do
    if type(name) ~= "string" then wrong("gate.query.build", "names as strings", name) end
    names[#names + 1] = name
  end
  sort(names)
  local function add(name, value)
    if value == true then
      parts[#parts + 1] = name
    elseif value ~= false then
      parts[#parts + 1] = name .. "=" .. escape(text_of(value, "gate.query.build"))
    end
  end
  for _, name in ipairs(names) do
    local value, escaped = args[name], escape(name)
    if type(value) == "table" then
      for _, one in ipairs(value) do add(escaped, one) end
    else
      add(escaped, value)
    end
  end
  return concat(parts, "&")
end

-- ---- cookies ----------------------------------------------------------------------------------------------

local Cookies = { __metatable = "cookies" }
local objects = setmetatable({}, { __mode = "k" })

--- req.cookies
--- The cookies of the request by name (RFC 6265, 5.4): the value as it came, without double quotes around it;
--- nil for one that is not there; of a repeated one the first. gate.cookie.parse(req.headers.cookie or "")
--- has all of them.
--- @example
---   local session = req.cookies.session
function request_get.cookies(t)
  local cookies = objects[t]
  if not cookies then
    cookies = setmetatable({ t[1] }, Cookies)
    objects[t] = cookies
  end
  return cookies
end

function Cookies.__index(t, name)
  if type(name) ~= "string" then wrong("a cookie's name", "a string", name) end
  local result = c_request_cookie(t[1], name, #name, out)
  if result == OK then
    local text = ffi_string(out.at, out.len)
    return text
  end
  if result ~= NONE then fail(result, "request") end
end
function Cookies.__newindex() raise("the cookies of a request cannot be set: set req.headers.cookie") end

gate.cookie = {}

--- gate.cookie.parse(text, limit)
--- Reads a Cookie field.
--- @return a table of names and values, as req.cookies has them; second, true if there were more than `limit`
--- cookies (1000 if left out): those behind it are left out
--- @example
---   local cookies = gate.cookie.parse('a=1; b="two"')
---   local b = cookies.b                                  -- "two"
function gate.cookie.parse(text, limit)
  if type(text) ~= "string" then wrong("gate.cookie.parse", "a string", text) end
  limit = limit or 1000
  if type(limit) ~= "number" then wrong("gate.cookie.parse", "a limit as a number", limit) end
  local cookies, count, position = {}, 0, 0
  while true do
    out_position[0] = position
    if c_cookie_next(text, #text, out_position, out_name, out) ~= OK then return cookies, false end
    if count >= limit then return cookies, true end
    count = count + 1
    position = out_position[0]
    local name, value = ffi_string(out_name.at, out_name.len), ffi_string(out.at, out.len)
    if cookies[name] == nil then cookies[name] = value end
  end
end

local function attribute(name, value)
  if type(value) ~= "string" then wrong('the attribute "' .. name .. '" of a cookie', "a string", value) end
  if c_check(ATTRIBUTE, value, #value) ~= 1 then
    raise('the attribute "' .. name
      .. '" of a cookie has a character that it must not (";", control, not ASCII)')
  end
  return value
end

-- How each attribute is printed: text, or nil for nothing.
local same_site = { strict = "Strict", lax = "Lax", none = "None" }
local attributes = {
  { "path", function(value) return "Path=" .. attribute("path", value) end },
  { "domain", function(value) return "Domain=" .. attribute("domain", value) end },
  { "max_age", function(value)
    if type(value) ~= "number" or value ~= floor(value) or not (value > -1e15 and value < 1e15) then
      wrong('the attribute "max_age" of a cookie', "whole seconds", value)
    end
    return ("Max-Age=%d"):format(value)
  end },
  { "expires", function(value) return "Expires=" .. gate.time.http(value) end },
  { "secure", function(value) return value and "Secure" end },
  { "http_only", function(value) return value and "HttpOnly" end },
  { "same_site", function(value)
    local word = same_site[value]
    if not word then raise('the attribute "same_site" of a cookie: expected "strict", "lax" or "none"') end
    return "SameSite=" .. word
  end },
  { "partitioned", function(value) return value and "Partitioned" end },
}
local known = {}
for _, one in ipairs(attributes) do known[one[1]] = true end

--- gate.cookie.build(name, value, attributes)
--- Makes the value of a Set-Cookie field (RFC 6265, 4.1). attributes is a table of any of path, domain
--- (strings), max_age (whole seconds; 0 removes the cookie), expires (seconds since 1970), secure, http_only,
--- partitioned (booleans) and same_site ("strict", "lax", "none"), or nil.
--- @return the text; res.headers:add("set-cookie", text) sends it beside those that are there
--- @error for a name or value with characters that a cookie must not have (escape or encode them), an unknown
--- attribute, and what browsers refuse: same_site "none" or partitioned without secure, a name that begins
--- with __Secure- without secure, one that begins with __Host- without secure and path "/" or with a domain
--- @example
---   local text = gate.cookie.build("seen", "1", { path = "/", same_site = "lax" })
---   local same = text == "seen=1; Path=/; SameSite=Lax"  -- true
---   res.headers:add("set-cookie", text)
function gate.cookie.build(name, value, options)
  if type(name) ~= "string" or c_check(TOKEN, name, #name) ~= 1 then
    wrong("gate.cookie.build", "a name of letters, digits and a few signs", name)
  end
  value = text_of(value, "gate.cookie.build's value")
  if c_check(COOKIE_VALUE, value, #value) ~= 1 then
    raise('gate.cookie.build: the value of "' .. name
      .. '" has a character that a cookie must not have: '
      .. "encode it (gate.query.escape, gate.base64.encode_url)")
  end
  local parts = { name .. "=" .. value }
  if options ~= nil then
    if type(options) ~= "table" then wrong("gate.cookie.build", "a table of attributes", options) end
    for key in pairs(options) do
      if not known[key] then raise('gate.cookie.build: unknown attribute "' .. tostring(key) .. '"') end
    end
    for _, one in ipairs(attributes) do
      local option = options[one[1]]
      if option ~= nil then parts[#parts + 1] = one[2](option) or nil end
    end
  end
  local secure = options and options.secure
  local prefix = name:lower()
  if not secure and (options and (options.same_site == "none" or options.partitioned)
    or prefix:sub(1, 9) == "__secure-" or prefix:sub(1, 7) == "__host-") then
    raise('gate.cookie.build: browsers refuse "' .. name .. '" without secure = true')
  end
  if prefix:sub(1, 7) == "__host-" and (options.path ~= "/" or options.domain ~= nil) then
    raise('gate.cookie.build: browsers refuse "' .. name .. '" unless path is "/" and there is no domain')
  end
  return concat(parts, "; ")
end
