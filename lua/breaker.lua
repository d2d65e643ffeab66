-- SPDX-License-Identifier: BSD-2-Clause
-- A circuit breaker: when too many requests to an upstream fail, it is left alone for a while, in all workers; then
-- one request at a time tries whether it has come back. Meanwhile another upstream serves, or the client is told to
-- come again.
--
--   shared breakers 1m;                                # at the top of the configuration
--   script breaker.lua upstream=app instead=reserve;
--
-- Settings:
--   upstream=NAME        the upstream that is watched, and that requests go to. Required
--   instead=NAME         where they go while it is left alone; without it they are answered 503
--   failures=NUMBER      how many within the window open the breaker, 10 by default
--   window=SECONDS       10 by default
--   open=SECONDS         how long it is left alone before one request tries, 15 by default
--   statuses="NUMBER ..."  answers that count as failures: "500 502 503 504" by default; no answer always does
--   dict=NAME            the shared dictionary, "breakers" by default
local gate = require "moongate"
local settings = gate.settings(..., {
  upstream = "string", instead = "string", failures = "number", window = "number", open = "number", statuses = "list",
  dict = "string",
})

local upstream = settings.upstream or error("the setting upstream=NAME is required")
local most, window, open = settings.failures or 10, settings.window or 10, settings.open or 15
local breakers = gate.shared(settings.dict or "breakers")
local OPEN, TRIAL, COUNT = upstream .. ":open", upstream .. ":trial", upstream .. ":failures"
local bad = {}
for _, status in ipairs(settings.statuses or { "500", "502", "503", "504" }) do bad[tonumber(status)] = true end

local hooks = {}

function hooks.route(req)
  if breakers:get(OPEN) == nil then
    req.ctx.breaker = "watched"
    return upstream
  end
  -- The key outlives the time for which nobody goes there: then who adds TRIAL first may try.
  if breakers:get(OPEN) <= gate.now() and breakers:add(TRIAL, true, open) then
    req.ctx.breaker = "trial"
    return upstream
  end
  req.ctx.breaker = nil
  if settings.instead then return settings.instead end
  return req:respond(503, { ["retry-after"] = math.ceil(open), ["content-type"] = "text/plain" }, "not now\n")
end

local function opened()
  breakers:set(OPEN, gate.now() + open)
  breakers:delete(COUNT)
  breakers:delete(TRIAL)
end

local function judge(req, failed)
  local role = req.ctx.breaker
  req.ctx.breaker = nil
  if role == "trial" then
    if failed then
      opened()
    else
      breakers:delete(OPEN)
      breakers:delete(TRIAL)
      gate.log.notice(upstream, "has come back")
    end
  elseif role == "watched" and failed and breakers:incr(COUNT, 1, 0, window) >= most and breakers:get(OPEN) == nil then
    opened()
    gate.log.warn(upstream, "is left alone for", open, "seconds")
  end
end

function hooks.response(req, res) judge(req, bad[res.status]) end
function hooks.error(req) judge(req, req.termination:find("^upstream_") ~= nil) end
-- A trial that nothing was heard of (its client went) leaves TRIAL to run out.

return hooks
