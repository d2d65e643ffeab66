-- SPDX-License-Identifier: BSD-2-Clause
-- A firewall: lets connections and requests in or not, by the client's network, the method, the path and
-- header fields.
--
--   script firewall.lua denied=/etc/moongate/denied.txt methods="GET HEAD POST" deny_paths="/admin/ %.git/";
--
-- Settings, all of them optional:
--   denied=FILE          networks (one a line, # begins a comment) whose clients are not let in
--   allowed=FILE         networks whose clients are let in, and nobody else
--   deny="NET ..."       the same as denied, here: addresses and networks, parted by spaces or commas
--   allow="NET ..."      the same as allowed
--   drop=on|off          on (the default): a client that is not let in is closed at once, before a byte is
--                        read; off: its requests are answered 403
--   methods="M ..."      the only methods that are allowed; others are answered 405
--   deny_paths="P ..."   paths that are answered 403. One that begins with / is a prefix, everything else a
--                        Lua pattern that is looked for anywhere in the path (%.php$, ^/wp-)
--   allow_paths="P ..."  exceptions from deny_paths
--   deny_headers="NAME: PATTERN; ..."
--                        header fields that are answered 403: a Lua pattern looked for in the field's value,
--                        in lower case
--   log=on|off           write a line to the error log (level info) for each request that is refused; off by
--                        default
--
-- The path that is looked at is decoded and free of "." and ".." already: "/%61dmin/" and "/x/../admin/" are
-- "/admin/". Where servers may read a path in several ways ("//", "%2f" and the like: req.readings), one that
-- fits deny_paths is enough to be refused, and all must fit allow_paths to be let in.
local gate = require "moongate"
local settings = gate.settings(..., {
  denied = "string", allowed = "string", deny = "list", allow = "list", drop = "boolean", methods = "list",
  deny_paths = "list", allow_paths = "list", deny_headers = "string", log = "boolean",
})

-- Networks: up to two sets for each side, from a file and from the settings.
local denied, allowed = {}, {}
if settings.denied then denied[#denied + 1] = gate.cidr_file(settings.denied) end
if settings.deny then denied[#denied + 1] = gate.cidr(settings.deny) end
if settings.allowed then allowed[#allowed + 1] = gate.cidr_file(settings.allowed) end
if settings.allow then allowed[#allowed + 1] = gate.cidr(settings.allow) end

local function contains(sets, ip)
  for i = 1, #sets do
    if sets[i]:contains(ip) then return true end
  end
  return false
end

local function refused(ip)
  return contains(denied, ip) or (#allowed > 0 and not contains(allowed, ip))
end

local methods
if settings.methods then
  methods = {}
  for _, method in ipairs(settings.methods) do methods[method:upper()] = true end
  methods.names = table.concat(settings.methods, ", "):upper()
end

-- A path rule is a prefix (plain text) or a pattern; a pattern is tried here so that a bad one is found at
-- load.
local function path_rules(list)
  local rules = {}
  for i, text in ipairs(list or {}) do
    local plain = text:sub(1, 1) == "/"
    if not plain then
      local ok, why = pcall(string.find, "", text)
      if not ok then error('bad pattern "' .. text .. '": ' .. why) end
    end
    rules[i] = { text = text, plain = plain, len = #text }
  end
  return rules
end

local function fits(rules, path)
  for i = 1, #rules do
    local rule = rules[i]
    if rule.plain then
      if path:sub(1, rule.len) == rule.text then return true end
    elseif path:find(rule.text) then
      return true
    end
  end
  return false
end

local function denied_path(req, deny, allow)
  local readings = req.readings
  for i = 1, #readings do
    if fits(deny, readings[i]) then
      for j = 1, #readings do
        if not fits(allow, readings[j]) then return true end
      end
      return false
    end
  end
  return false
end

local deny_paths, allow_paths = path_rules(settings.deny_paths), path_rules(settings.allow_paths)

local deny_headers = {}
for rule in (settings.deny_headers or ""):gmatch("[^;]+") do
  local name, pattern = rule:match("^%s*([^:%s]+)%s*:%s*(.-)%s*$")
  if not name then error('bad rule "' .. rule .. '" in deny_headers: expected NAME: PATTERN') end
  local ok, why = pcall(string.find, "", pattern)
  if not ok then error('bad pattern "' .. pattern .. '": ' .. why) end
  deny_headers[#deny_headers + 1] = { name = name, pattern = pattern }
end

local function forbid(req, why)
  if settings.log then gate.log.info("refused", req.conn.remote_ip, req.method, req.path, "for its", why) end
  return req:respond(403, { ["content-type"] = "text/plain" }, "forbidden\n")
end

local hooks = {}
local by_network = #denied > 0 or #allowed > 0

if by_network and settings.drop ~= false then
  function hooks.connect(conn)
    if refused(conn.remote_ip) then return conn:reject() end
  end
  by_network = false
end

if by_network or methods or #deny_paths > 0 or #deny_headers > 0 then
  function hooks.request(req)
    if by_network and refused(req.conn.remote_ip) then return forbid(req, "network") end
    if methods and not methods[req.method] then
      return req:respond(405, { allow = methods.names, ["content-type"] = "text/plain" },
        "method not allowed\n")
    end
    if #deny_paths > 0 and denied_path(req, deny_paths, allow_paths) then return forbid(req, "path") end
    for i = 1, #deny_headers do
      local rule = deny_headers[i]
      local value = req.headers[rule.name]
      if value and value:lower():find(rule.pattern) then return forbid(req, "field " .. rule.name) end
    end
  end
end

return hooks
