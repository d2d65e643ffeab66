-- SPDX-License-Identifier: BSD-2-Clause
-- Lets only requests pass that bring a JSON Web Token (RFC 7519, RFC 6750) which is signed, in time and meant for this
-- site, and tells the server what the token says. It needs lua-cjson.
--
--   script jwt.lua key=issuer.pem issuer=https://login.example.org audience=shop claims="sub=x-user scope=x-scope";
--
-- Settings:
--   key=FILE             the issuer's RSA public key or certificate in PEM, for RS256, RS384 and RS512 ...
--   secret=TEXT          ... or the secret that is shared with it, 32 bytes or more, for HS256, HS384 and HS512. Which of
--                        both is given decides what a token may be signed with: its own word for it is only compared
--   issuer=TEXT          what "iss" must be
--   audience=TEXT        what "aud" must be, or hold
--   leeway=SECONDS       by how much clocks may differ, 30 by default
--   cookie=NAME          where a token is looked for when there is no Authorization field
--   claims="CLAIM=NAME ..."  fields in which the server gets claims that are strings or numbers (lists of them are joined
--                        by spaces); a client's own of these names are taken out
--   keep=on|off          whether the server gets the token, too (on by default)
--   paths="PREFIX ..."   only these paths need a token; all by default
-- A token without "exp" is refused: it would be good for ever.
local gate = require "moongate"
local settings = gate.settings(..., {
  key = "string", secret = "string", issuer = "string", audience = "string", leeway = "number", cookie = "string",
  claims = "list", keep = "boolean", paths = "list",
})

if (settings.key == nil) == (settings.secret == nil) then error("one of the settings key=FILE and secret=TEXT is required") end
local key = settings.key and gate.public_key_file(settings.key)
local secret, leeway, paths = settings.secret, settings.leeway or 30, settings.paths
if secret and #secret < 32 then error("secret: it has less than 32 bytes") end

local claims = {}
for _, text in ipairs(settings.claims or {}) do
  local claim, name = text:match("^([^=]+)=([^=]+)$")
  if not claim then error('claims: "' .. text .. '" is none: expected CLAIM=NAME') end
  claims[#claims + 1] = { claim = claim, name = name }
end

local digests = { ["256"] = "sha256", ["384"] = "sha384", ["512"] = "sha512" }

local function signed(algorithm, text, signature)
  local family, size = tostring(algorithm):match("^([HR]S)(%d%d%d)$")
  local digest = size and digests[size]
  if not digest or (family == "RS") ~= (key ~= nil) then return false end
  if key then return key:verify(digest, text, signature) end
  return gate.equal(gate.hmac(digest, secret, text), signature)
end

local function number(value) return type(value) == "number" and value or nil end

local function meant(audience)
  if not settings.audience or audience == settings.audience then return true end
  for _, one in ipairs(type(audience) == "table" and audience or {}) do
    if one == settings.audience then return true end
  end
  return false
end

-- What the token says, or nil and why it is no good.
local function read(token)
  local head64, body64, signature64 = token:match("^([%w_-]+)%.([%w_-]+)%.([%w_-]+)$")
  if not head64 then return nil, "it is no token" end
  local head = gate.base64.decode_url(head64)
  local body, signature = gate.base64.decode_url(body64), gate.base64.decode_url(signature64)
  head = head and gate.json.decode(head)
  if type(head) ~= "table" or not body or not signature then return nil, "it is no token" end
  if head.crit ~= nil then return nil, "it needs what is not known here" end
  if not signed(head.alg, head64 .. "." .. body64, signature) then return nil, "its signature is wrong" end
  local said, now = gate.json.decode(body), gate.now()
  if type(said) ~= "table" then return nil, "it is no token" end
  local ends, begins = number(said.exp), said.nbf
  if not ends or now >= ends + leeway then return nil, "it has expired" end
  if begins ~= nil and (not number(begins) or now < begins - leeway) then return nil, "it is not valid yet" end
  if settings.issuer and said.iss ~= settings.issuer then return nil, "it is of another issuer" end
  if not meant(said.aud) then return nil, "it is for another audience" end
  return said
end

-- Any reading of the path counts, else a server would hand out what nobody asked a token for.
local function concerned(req)
  if not paths then return true end
  for _, path in ipairs(req.readings) do
    for i = 1, #paths do
      if path:sub(1, #paths[i]) == paths[i] then return true end
    end
  end
  return false
end

local function text_of(value)
  if type(value) == "number" then return ("%.14g"):format(value) end
  if type(value) == "string" then return value end
  if type(value) ~= "table" then return nil end
  local parts = {}
  for i, one in ipairs(value) do
    if type(one) ~= "string" and type(one) ~= "number" then return nil end
    parts[i] = tostring(one)
  end
  return table.concat(parts, " ")
end

local hooks = {}

function hooks.request(req)
  local headers = req.headers
  for i = 1, #claims do headers[claims[i].name] = nil end
  if not concerned(req) then return end
  local field = headers.authorization
  local token = field and field:match("^[Bb][Ee][Aa][Rr][Ee][Rr] +(%S+)$")
  if not field and settings.cookie then token = req.cookies[settings.cookie] end
  local said, why
  if token then said, why = read(token) end
  if not said then
    local challenge = 'Bearer realm="' .. req.host:gsub('[\\"]', "") .. '"'
    if why then challenge = challenge .. ', error="invalid_token", error_description="' .. why .. '"' end
    return req:respond(401, { ["www-authenticate"] = challenge, ["content-type"] = "text/plain" },
      why and "the token is refused: " .. why .. "\n" or "a token is needed\n")
  end
  for i = 1, #claims do
    local text = text_of(said[claims[i].claim])
    -- What a field cannot hold is not worth a 500: it is left out.
    if text and not text:find("[%z\1-\8\10-\31\127]") then headers[claims[i].name] = text end
  end
  if settings.keep == false then headers.authorization = nil end
  req.ctx.token = said
end

return hooks
