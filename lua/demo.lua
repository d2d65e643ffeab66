-- SPDX-License-Identifier: BSD-2-Clause
-- The origin of the demo (conf/demo.conf): a server made of one request hook. It shows what a script can
-- answer by itself.
--
--   /                 a page
--   /headers          the fields of the request, as text, or as JSON with Accept: application/json
--   /slow?seconds=2   answers after a while; the worker goes on with others meanwhile
--   /status/404       answers with that status
--   everything else   404
-- Requests that came by the canary's upstream carry its name in the answer: x-origin.
local gate = require "moongate"
local settings = gate.settings(..., { name = "string" })
local name = settings.name or "origin"

local page = [[
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>moongate</title>
<style>body { font: 16px/1.5 sans-serif; max-width: 42em; margin: 3em auto; padding: 0 1em }</style>
<h1>Through the gate</h1>
<p>This page came through moongate %s: a frontend with a firewall and a router, both Lua scripts, in front of
this one, which answers from Lua as well.
<ul>
<li><a href="/headers">/headers</a>: what the origin gets
<li><a href="/slow?seconds=1">/slow?seconds=1</a>: a hook that waits
<li><a href="/status/503">/status/503</a>: any status
<li><a href="/admin/">/admin/</a>: what the firewall refuses
</ul>
<p>Edit a script in lua/ and reload: the change is live in every worker, no connection is dropped.
</html>
]]

local function escape(c) return ("\\u%04x"):format(c:byte()) end
local function json(text)
  return '"' .. text:gsub('[%c"\\]', escape) .. '"'
end

local function headers(req)
  local lines, as_json = {}, (req.headers.accept or ""):find("application/json", 1, true)
  for field, value in req.headers:each() do
    lines[#lines + 1] = as_json and "  [" .. json(field) .. ", " .. json(value) .. "]"
      or field .. ": " .. value
  end
  if as_json then
    return "application/json", "[\n" .. table.concat(lines, ",\n") .. "\n]\n"
  end
  table.insert(lines, 1, req.method .. " " .. req.target)
  return "text/plain; charset=utf-8", table.concat(lines, "\n") .. "\n"
end

local function answer(req, status, kind, body)
  return req:respond(status, { ["content-type"] = kind, ["x-origin"] = name }, body)
end

local hooks = {}

function hooks.request(req)
  local path = req.path
  if path == "/" then
    return answer(req, 200, "text/html; charset=utf-8", page:format(gate.version))
  elseif path == "/headers" then
    return answer(req, 200, headers(req))
  elseif path == "/slow" then
    local seconds = math.max(0, math.min(tonumber(req.args.seconds) or 1, 30))
    gate.sleep(seconds)
    return answer(req, 200, "text/plain", "after " .. seconds .. " s\n")
  end
  local status = tonumber(path:match("^/status/(%d%d%d)$"))
  if status and status >= 200 and status <= 599 then
    local bodiless = status == 204 or status == 205 or status == 304
    return answer(req, status, "text/plain", bodiless and "" or "status " .. status .. "\n")
  end
  return answer(req, 404, "text/plain", "there is no " .. path:sub(1, 200) .. "\n")
end

-- What to try, once, when the first configuration has been loaded.
if gate.worker == 0 and gate.generation == 1 and not settings.name then
  for _, line in ipairs {
    "moongate listens on http://127.0.0.1:8080/ now. Try:",
    "  curl http://127.0.0.1:8080/              a page, through a firewall and a router to a second frontend",
    "  curl http://127.0.0.1:8080/headers       what the origin gets",
    "  curl -i http://127.0.0.1:8080/admin/     403 from lua/firewall.lua",
    "  curl -i -H 'x-route: canary' http://127.0.0.1:8080/   x-origin says which upstream answered",
    "  edit lua/demo.lua or conf/demo.conf, then: build/moongatectl -s SOCKET reload   (see conf/demo.conf)",
  } do
    gate.log.notice(line)
  end
end

return hooks
