-- SPDX-License-Identifier: BSD-2-Clause
-- Answers everybody with a page that says that the site is being worked on, but for those who work on it. It is
-- switched by reload, or at run time, in all workers at once, by a key of a shared dictionary.
--
--   shared switches 1m;                                # at the top of the configuration; survives a reload
--   script maintenance.lua dict=switches control=/maintenance from="10.0.0.0/8" except="10.1.2.3";
--
-- Settings, all of them optional:
--   on=on|off            whether it is on while nobody has switched it; on by default without dict=
--   dict=NAME            a shared dictionary that holds the switch
--   control=PATH         with dict=: POST switches it on, DELETE off, GET tells; for clients of from= alone
--   from="NET ..."       whose clients may switch: those of this machine (127.0.0.0/8, ::1) by default
--   except="NET ..."     clients that see the site all the same
--   paths="PREFIX ..."   paths that are served all the same, such as /health
--   retry=SECONDS        what Retry-After says, 300 by default
--   text="..."           what the page says
local gate = require "moongate"
local settings = gate.settings(..., {
  on = "boolean", dict = "string", control = "string", from = "list", except = "list", paths = "list",
  retry = "number", text = "string",
})

local KEY = "maintenance"
local switches = settings.dict and gate.shared(settings.dict)
local default = settings.on
if default == nil then default = not switches end
if settings.control and not switches then error("control=PATH needs dict=NAME") end
local from = gate.cidr(settings.from or { "127.0.0.0/8", "::1" })
local except = settings.except and gate.cidr(settings.except)
local paths = settings.paths or {}
local text = settings.text or "This site is being worked on. Please come again a little later."
local page = "<!doctype html><meta charset=utf-8><title>Maintenance</title><h1>"
  .. text:gsub("[&<>]", { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;" }) .. "</h1>\n"
local fields = {
  ["content-type"] = "text/html; charset=utf-8", ["cache-control"] = "no-store", ["retry-after"] = settings.retry or 300,
}

local function is_on()
  local value = switches and switches:get(KEY)
  if value == nil then return default end
  return value
end

local function control(req)
  if not from:contains(req.conn.remote_ip) then return req:respond(403) end
  if req.method == "POST" then
    switches:set(KEY, true)
  elseif req.method == "DELETE" then
    switches:set(KEY, false)
  elseif req.method ~= "GET" then
    return req:respond(405, { allow = "GET, POST, DELETE" })
  end
  return req:respond(200, { ["content-type"] = "text/plain" }, is_on() and "on\n" or "off\n")
end

local function served(path)
  for i = 1, #paths do
    if path:sub(1, #paths[i]) == paths[i] then return true end
  end
end

local hooks = {}

function hooks.request(req)
  if settings.control and req.path == settings.control then return control(req) end
  if not is_on() or (except and except:contains(req.conn.remote_ip)) then return end
  if served(req.path) and #req.readings == 1 then return end
  return req:respond(503, fields, page)
end

return hooks
