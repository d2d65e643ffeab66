-- SPDX-License-Identifier: BSD-2-Clause
-- Parts clients among upstreams by shares, for A/B tests and canaries: a cookie keeps each where it was sent first,
-- as long as its choice is still offered.
--
--   script canary.lua choices="stable=90 next=10" paths="/shop/";
--
-- Settings:
--   choices="NAME=SHARE ..."  upstreams and their shares, which need not add up to 100. Required. A share of 0 takes
--                        nobody new, and keeps those whose cookie says so
--   cookie=NAME          the cookie, "choice" by default
--   days=NUMBER          how long it lasts: 30 by default; 0 until the browser ends
--   secure=on|off        whether it is sent back over https alone; by default as the request came
--   force=NAME           a header field with which a client chooses itself, by an upstream's name; none by default
--   paths="PREFIX ..."   only these paths; all by default
-- The server learns the choice from the field x-choice.
local gate = require "moongate"
local settings = gate.settings(..., {
  choices = "list", cookie = "string", days = "number", secure = "boolean", force = "string", paths = "list",
})

local choices, known, total = {}, {}, 0
for _, text in ipairs(settings.choices or error('the setting choices="NAME=SHARE ..." is required')) do
  local name, share = text:match("^([%w_.:-]+)=([%d.]+)$")
  share = tonumber(share)
  if not share then error('choices: "' .. text .. '" is none: expected NAME=SHARE') end
  if known[name] then error('choices: "' .. name .. '" is there twice') end
  choices[#choices + 1] = { name = name, share = share }
  known[name] = true
  total = total + share
end
if total <= 0 then error("choices: the shares add up to nothing") end
local cookie, days = settings.cookie or "choice", settings.days or 30
gate.cookie.build(cookie, "x")  -- raises here if the name can be none
local paths = settings.paths

local function concerned(path)
  if not paths then return true end
  for i = 1, #paths do
    if path:sub(1, #paths[i]) == paths[i] then return true end
  end
  return false
end

local function draw()
  local point = gate.random.integer(0, 999999) / 1e6 * total
  for i = 1, #choices do
    point = point - choices[i].share
    if point < 0 then return choices[i].name end
  end
  return choices[#choices].name
end

local hooks = {}

function hooks.request(req)
  req.headers["x-choice"] = nil
  if not concerned(req.path) then return end
  local forced = settings.force and req.headers[settings.force]
  local kept = req.cookies[cookie]
  local choice = known[forced] and forced or known[kept] and kept or draw()
  req.ctx.choice = choice
  req.ctx.choice_is_new = choice ~= kept and choice ~= forced
  req.headers["x-choice"] = choice
end

function hooks.route(req) return req.ctx.choice end

function hooks.response(req, res)
  if not req.ctx.choice_is_new then return end
  local secure = settings.secure
  if secure == nil then secure = req.scheme == "https" end
  res.headers:add("set-cookie", gate.cookie.build(cookie, req.ctx.choice, {
    path = "/", http_only = true, same_site = "lax", secure = secure, max_age = days > 0 and days * 86400 or nil,
  }))
end

return hooks
