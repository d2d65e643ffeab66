-- SPDX-License-Identifier: BSD-2-Clause
-- Gives each request an id in a header field, to the server and to the client, so that the logs of both can be laid
-- side by side. It is the id that stands in moongate's own logs, unless a client that is trusted brings one.
--
--   script request_id.lua header=x-request-id trust="10.0.0.0/8";
--
-- Settings, all of them optional:
--   header=NAME          the field, x-request-id by default
--   trust="NET ..."      clients whose own id is kept: up to 128 letters, digits and .:_-=+/ characters; of others, and
--                        of any other form, it is replaced
--   answer=on|off        whether the client is told (on by default)
local gate = require "moongate"
local settings = gate.settings(..., { header = "string", trust = "list", answer = "boolean" })

local header = settings.header or "x-request-id"
local trusted = settings.trust and gate.cidr(settings.trust)

local hooks = {}

function hooks.request(req)
  local id = req.id
  local theirs = trusted and req.headers[header]
  if theirs and #theirs <= 128 and theirs:find("^[%w.:_=+/-]+$") and trusted:contains(req.conn.remote_ip) then
    id = theirs
    gate.log.info("is", theirs, "of the client")
  end
  req.headers[header] = id
  req.ctx.request_id = id
end

if settings.answer ~= false then
  function hooks.response(req, res) res.headers[header] = req.ctx.request_id end
  function hooks.error(req, res) res.headers[header] = req.ctx.request_id or req.id end
end

return hooks
