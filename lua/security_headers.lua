-- SPDX-License-Identifier: BSD-2-Clause
-- Adds the fields with which a site tells browsers to be careful, where the server has not set them itself, and takes
-- out those that tell what the server is.
--
--   script security_headers.lua csp="default-src 'self'";
--
-- Settings, all of them optional; "off" leaves a field as it is:
--   hsts="..."           Strict-Transport-Security, of https alone: "max-age=31536000; includeSubDomains" by default
--   csp="..."            Content-Security-Policy: none by default, for what is right depends on the site
--   frames="..."         X-Frame-Options: "SAMEORIGIN" by default
--   referrer="..."       Referrer-Policy: "strict-origin-when-cross-origin" by default
--   permissions="..."    Permissions-Policy: none by default
--   opener="..."         Cross-Origin-Opener-Policy: none by default
--   force=on|off         on: in the place of what the server has set (off by default)
--   hide="NAME ..."      fields that are taken out: "server x-powered-by x-aspnet-version" by default
-- X-Content-Type-Options: nosniff is always there.
local gate = require "moongate"
local settings = gate.settings(..., {
  hsts = "string", csp = "string", frames = "string", referrer = "string", permissions = "string", opener = "string",
  force = "boolean", hide = "string",
})

local wanted = {}
local function want(name, value, https)
  if value and value ~= "off" then wanted[#wanted + 1] = { name = name, value = value, https = https } end
end
want("strict-transport-security", settings.hsts or "max-age=31536000; includeSubDomains", true)
want("content-security-policy", settings.csp)
want("x-frame-options", settings.frames or "SAMEORIGIN")
want("referrer-policy", settings.referrer or "strict-origin-when-cross-origin")
want("permissions-policy", settings.permissions)
want("cross-origin-opener-policy", settings.opener)
want("x-content-type-options", "nosniff")

local hidden = {}
for name in (settings.hide or "server x-powered-by x-aspnet-version"):gmatch("[^,%s]+") do
  if name ~= "off" then hidden[#hidden + 1] = name end
end

local function add(req, res)
  local headers, https = res.headers, req.scheme == "https"
  for i = 1, #hidden do headers[hidden[i]] = nil end
  for i = 1, #wanted do
    local one = wanted[i]
    if (https or not one.https) and (settings.force or not headers[one.name]) then headers[one.name] = one.value end
  end
end

return { response = add, error = add }
