-- SPDX-License-Identifier: BSD-2-Clause
-- Asks for a name and a password (RFC 7617), and tells the server who it is. Passwords stand in the configuration as
-- digests with a salt; guessing is slowed down for each address.
--
--   script basic_auth.lua users=staff realm="The office" limits=guesses;
--
-- Settings:
--   users=MODULE         a Lua module in a folder of scripts (staff.lua) that returns a table of names and digests:
--                          return { diana = "k3v9$3f6c..." }
--                        A digest is a salt, "$" and the SHA-256 of salt and password in hex:
--                          printf %s 'k3v9secret' | sha256sum                       Required, this or user=
--   user="NAME:SALT$DIGEST"  one alone
--   realm="..."          what the browser shows, "restricted" by default
--   header=NAME          the field in which the server gets the name, x-user by default
--   limits=NAME          a shared dictionary: each address may be wrong ten times, then once in six seconds; in
--                        between it is answered 429, whatever password it has
--   paths="PREFIX ..."   only these paths are asked for; all by default
--   keep=on|off          whether the server gets the password, too (off by default)
-- One round of SHA-256 keeps a password of many random characters, not a short word: choose them so.
local gate = require "moongate"
local settings = gate.settings(..., {
  users = "string", user = "string", realm = "string", header = "string", limits = "string", paths = "list",
  keep = "boolean",
})

local digests = {}
local function add(name, digest)
  local salt, hex = tostring(digest):match("^([^$]+)%$(%x+)$")
  if not salt or #hex ~= 64 then error('the digest of "' .. tostring(name) .. '" is none: expected SALT$DIGEST') end
  digests[name] = { salt = salt, hex = hex:lower() }
end
if settings.users then
  for name, digest in pairs(require(settings.users)) do add(name, digest) end
end
if settings.user then
  local name, digest = settings.user:match("^([^:]+):(.+)$")
  if not name then error("user: expected NAME:SALT$DIGEST") end
  add(name, digest)
end
if not next(digests) then error("the setting users=MODULE or user=NAME:SALT$DIGEST is required") end

local realm = (settings.realm or "restricted"):gsub('[\\"]', "")
local header, paths = settings.header or "x-user", settings.paths
local limits = settings.limits and gate.shared(settings.limits)
local nobody = { salt = "nobody", hex = ("0"):rep(64) }

-- Any reading of the path counts, else a server would hand out what nobody asked for here.
local function concerned(req)
  if not paths then return true end
  for _, path in ipairs(req.readings) do
    for i = 1, #paths do
      if path:sub(1, #paths[i]) == paths[i] then return true end
    end
  end
  return false
end

-- The name, when name and password are right. Whether there is such a name takes as long as whether it fits.
local function known(field)
  local token = field and field:match("^[Bb][Aa][Ss][Ii][Cc] +([%w+/=]+)$")
  local pair = token and gate.base64.decode(token)
  local name, password = (pair or ""):match("^([^:]*):(.*)$")
  if not name then return nil end
  local digest = digests[name] or nobody
  local right = gate.equal(gate.hex.encode(gate.sha256(digest.salt .. password)), digest.hex)
  return right and digests[name] and name or nil
end

local function too_many(req, seconds)
  return req:respond(429, { ["retry-after"] = math.ceil(seconds or 1), ["content-type"] = "text/plain" },
    "too many wrong passwords\n")
end

local hooks = {}

function hooks.request(req)
  req.headers[header] = nil
  if not concerned(req) then return end
  local field = req.headers.authorization
  local network = field and limits and gate.network(req.conn.remote_ip, 32, 64)
  -- Before anything is compared: else the answer to a right guess would show among those to wrong ones.
  if network and limits:get("stop:" .. network) then return too_many(req, limits:ttl("stop:" .. network)) end
  local name = known(field)
  if name then
    if not settings.keep then req.headers.authorization = nil end
    req.headers[header] = name
    req.ctx.user = name
    return
  end
  if network then
    local ok, wait = limits:take("wrong:" .. network, 1 / 6, 10)
    if not ok then
      limits:set("stop:" .. network, true, wait)
      return too_many(req, wait)
    end
  end
  return req:respond(401, {
    ["www-authenticate"] = 'Basic realm="' .. realm .. '", charset="UTF-8"', ["content-type"] = "text/plain",
  }, "a name and a password are needed\n")
end

return hooks
