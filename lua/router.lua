-- SPDX-License-Identifier: BSD-2-Clause
-- Chooses the upstream by host, path and header field, and gives a share of the clients to a canary. What no
-- rule fits goes where the frontend's routes say.
--
--   script router.lua rules="host=api.example.org -> api; path=/static/ -> files; header=x-beta:1 -> beta"
--                     canary=next weight=5;
--
-- A path that servers may read in several ways (req.readings) is answered 400 when these fit different rules.
--
-- Settings, all of them optional:
--   rules="RULE; ..."    in order, the first that fits decides. A rule is conditions, "->" and the name of an
--                        upstream (or an address, 127.0.0.1:9000, or a name, app.example:9000). All of its conditions must hold:
--                          host=NAME            the host asked for; *.example.org fits every name below it
--                          path=PREFIX          what the path begins with
--                          method=NAME          the method
--                          header=NAME          the field is there
--                          header=NAME:VALUE    it has this value
--   table=MODULE         the same from a Lua module in a folder of scripts, for more of them. It returns a
--                        list of tables with the fields host, path, method, header, value and upstream
--   canary=UPSTREAM      where a share of the clients goes, after the rules have been asked
--   weight=PERCENT       how large that share is, 0 to 100; fractions are allowed
--   by=address           the choice is the same each time for one client address (the default),
--   by=cookie:NAME       or for one value of a cookie (a session's); without the cookie, for the address
--   by=header:NAME       or for one value of a header field
--   force=NAME           a header field with which a client chooses itself: "canary" or "stable" as its value
local gate = require "moongate"
local settings = gate.settings(..., {
  rules = "string", table = "string", canary = "string", weight = "number", by = "string", force = "string",
})

local conditions = { host = true, path = true, method = true, header = true }

local function parse_rule(text)
  local left, upstream = text:match("^%s*(.-)%s*%->%s*(%S+)%s*$")
  if not upstream then error('bad rule "' .. text .. '": expected CONDITION ... -> UPSTREAM') end
  local rule = { upstream = upstream }
  for condition in left:gmatch("%S+") do
    local name, value = condition:match("^(%a+)=(.+)$")
    if not conditions[name] then
      error('bad condition "' .. condition .. '" in rule "' .. text ..
        '": expected host=, path=, method= or header=')
    end
    if name == "header" then
      rule.header, rule.value = value:match("^([^:]+):?(.*)$")
      if rule.value == "" then rule.value = nil end
    else
      rule[name] = value
    end
  end
  return rule
end

local rules = {}
for text in (settings.rules or ""):gmatch("[^;]+") do
  if text:find("%S") then rules[#rules + 1] = parse_rule(text) end
end
if settings.table then
  for index, rule in ipairs(require(settings.table)) do
    if type(rule.upstream) ~= "string" then
      error('rule ' .. index .. ' of "' .. settings.table .. '" names no upstream')
    end
    -- A copy: what is noted in it below is this script's.
    rules[#rules + 1] = { host = rule.host, path = rule.path, method = rule.method, header = rule.header,
      value = rule.value, upstream = rule.upstream }
  end
end
for _, rule in ipairs(rules) do
  if rule.host then
    rule.host = rule.host:lower()
    if rule.host:sub(1, 2) == "*." then
      rule.suffix = rule.host:sub(2)
      rule.host = nil
    end
  end
end

local function fits(rule, req, path)
  if rule.host and req.host ~= rule.host then return false end
  if rule.suffix then
    local host = req.host
    if #host <= #rule.suffix or host:sub(-#rule.suffix) ~= rule.suffix then return false end
  end
  if rule.path and path:sub(1, #rule.path) ~= rule.path then return false end
  if rule.method and req.method ~= rule.method then return false end
  if rule.header then
    local value = req.headers[rule.header]
    if not value or (rule.value and value ~= rule.value) then return false end
  end
  return true
end

local canary, weight, force = settings.canary, settings.weight, settings.force
if canary and not weight then error("canary needs weight=PERCENT") end
if weight and (weight < 0 or weight > 100) then error("weight is 0 to 100") end
local kind, name = "address", nil
if settings.by and settings.by ~= "address" then
  kind, name = settings.by:match("^(%a+):(.+)$")
  if kind ~= "cookie" and kind ~= "header" then
    error('by="' .. settings.by .. '": expected address, cookie:NAME or header:NAME')
  end
end

local function cookie(req, wanted)
  for one, value in (req.headers.cookie or ""):gmatch("%s*([^=;]+)=([^;]*)") do
    if one == wanted then return value end
  end
end

local function is_canary(req)
  local forced = force and req.headers[force]
  if forced == "canary" then return true end
  if forced == "stable" then return false end
  local key
  if kind == "cookie" then
    key = cookie(req, name)
  elseif kind == "header" then
    key = req.headers[name]
  end
  return gate.hash("canary:" .. (key or req.conn.remote_ip)) % 10000 < weight * 100
end

local function find(req, path)
  for i = 1, #rules do
    if fits(rules[i], req, path) then return rules[i] end
  end
end

local by_path = false
for _, rule in ipairs(rules) do by_path = by_path or rule.path ~= nil end

local hooks = {}

function hooks.route(req)
  local rule = find(req, req.path)
  if by_path then
    local readings = req.readings
    for i = 2, #readings do
      if find(req, readings[i]) ~= rule then
        return req:respond(400, { ["content-type"] = "text/plain" }, "the path can be read in several ways\n")
      end
    end
  end
  if rule then return rule.upstream end
  -- Chosen once a request, so that a retry stays on its side.
  if canary then
    local ctx = req.ctx
    if ctx.router_canary == nil then ctx.router_canary = is_canary(req) end
    if ctx.router_canary then return canary end
  end
end

return hooks
