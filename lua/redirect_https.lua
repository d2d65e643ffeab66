-- SPDX-License-Identifier: BSD-2-Clause
-- Sends clients that came without TLS to the same place with it.
--
--   frontend plain {
--       listen 0.0.0.0:80;
--       script redirect_https.lua;
--   }
--
-- Settings, all of them optional:
--   host=NAME            the host to send them to; by default the one that they asked for
--   port=NUMBER          its port, 443 by default
--   status=NUMBER        308 (the default: the method stays) or 301, for good; 307 or 302, for now
--   except="PREFIX ..."  paths that are let through, such as /.well-known/acme-challenge/
local gate = require "moongate"
local settings = gate.settings(..., { host = "string", port = "number", status = "number", except = "list" })

local status = settings.status or 308
if status ~= 301 and status ~= 302 and status ~= 307 and status ~= 308 then
  error("status: expected 301, 302, 307 or 308")
end
local port = settings.port and settings.port ~= 443 and ":" .. settings.port or ""
local except = settings.except or {}

local hooks = {}

function hooks.request(req)
  if req.scheme == "https" then return end
  local path = req.path
  for i = 1, #except do
    if path:sub(1, #except[i]) == except[i] then return end
  end
  local host = settings.host or req.host
  if host == "" then
    return req:respond(400, { ["content-type"] = "text/plain" }, "a Host field is needed\n")
  end
  local query = req.query
  return req:redirect("https://" .. host .. port .. req.raw_path .. (query and "?" .. query or ""), status)
end

return hooks
