-- SPDX-License-Identifier: BSD-2-Clause
-- gate.digest, gate.hmac and what else secrets are compared and made with. All of it is libcrypto's.
local core = ...

local gate, C, ffi = core.parts.gate, core.parts.C, core.parts.ffi
local fail, wrong, raise = core.parts.fail, core.parts.wrong, core.parts.raise
local type, tostring, setmetatable, ffi_string, floor = type, tostring, setmetatable, ffi.string, math.floor
local OK = ffi.C.MG_OK
local RANDOM_MAX, HEX = ffi.C.MG_RANDOM_MAX, ffi.C.MG_HEX
local c_digest, c_hmac, c_siphash, c_equal = C.digest, C.hmac, C.siphash, C.equal
local c_key_verify = C.key_verify
local c_random_bytes, c_random_integer, c_encode = C.random_bytes, C.random_integer, C.text_encode
local out, out_number = ffi.new("struct mg_text"), ffi.new("double[1]")

local kinds = {}
for _, name in ipairs { "md5", "sha1", "sha224", "sha256", "sha384", "sha512" } do
  kinds[name] = C.digest_find(name, #name)
end
local SHA256 = kinds.sha256

local function kind_of(name, what)
  local kind = kinds[name]
  if not kind then
    raise(what .. ": expected md5, sha1, sha224, sha256, sha384 or sha512, got "
      .. (type(name) == "string" and '"' .. name .. '"' or name == nil and "nil" or "a " .. type(name)))
  end
  return kind
end

local function digest(kind, text, what)
  if type(text) ~= "string" then wrong(what, "a string", text) end
  local result = c_digest(kind, text, #text, out)
  if result ~= OK then fail(result) end
  local bytes = ffi_string(out.at, out.len)
  return bytes
end

--- gate.digest(name, text)
--- The digest of a string: "sha256", "sha384", "sha512", "sha224", "sha1" or "md5" (FIPS 180-4, RFC 1321; the
--- last two are for what demands them, not for secrets).
--- @return the bytes; gate.hex.encode() or gate.base64.encode() makes them readable
--- @error for another name, and for one that this machine's libcrypto is told to refuse
--- @example
---   local tag = gate.hex.encode(gate.digest("md5", ""))  -- "d41d8cd98f00b204e9800998ecf8427e"
function gate.digest(name, text)
  local bytes = digest(kinds[name] or kind_of(name, "gate.digest"), text, "gate.digest")
  return bytes
end

--- gate.sha256(text)
--- @return the 32 bytes of gate.digest("sha256", text)
--- @example
---   local key = gate.base64.encode_url(gate.sha256("a long text"))
function gate.sha256(text)
  local bytes = digest(SHA256, text, "gate.sha256")
  return bytes
end

--- gate.hmac(name, key, text)
--- The digest of a string under a key (HMAC, RFC 2104): who does not have the key cannot make it. Names are
--- those of gate.digest(). Compare it with gate.equal().
--- @return the bytes
--- @error as gate.digest()
--- @example
---   local mac = gate.hmac("sha256", "key", "text")
---   local ok  = gate.equal(mac, gate.hmac("sha256", "key", "text"))   -- true
function gate.hmac(name, key, text)
  local kind = kinds[name] or kind_of(name, "gate.hmac")
  if type(key) ~= "string" then wrong("gate.hmac", "a key as a string", key) end
  if type(text) ~= "string" then wrong("gate.hmac", "a string", text) end
  local result = c_hmac(kind, key, #key, text, #text, out)
  if result ~= OK then fail(result) end
  local bytes = ffi_string(out.at, out.len)
  return bytes
end

--- gate.siphash(key, text)
--- SipHash-2-4, a short and fast hash under a key of 16 bytes: for tables that a client must not be able to
--- fill with collisions. Not for signatures: use gate.hmac().
--- @return 8 bytes
--- @error for a key of another length
--- @example
---   local key  = gate.random.bytes(16)
---   local hash = gate.hex.encode(gate.siphash(key, "text"))
function gate.siphash(key, text)
  if type(key) ~= "string" then wrong("gate.siphash", "a key of 16 bytes", key) end
  if type(text) ~= "string" then wrong("gate.siphash", "a string", text) end
  local result = c_siphash(key, #key, text, #text, out)
  if result ~= OK then fail(result) end
  local bytes = ffi_string(out.at, out.len)
  return bytes
end

--- gate.equal(a, b)
--- Compares two strings in a time that says nothing about where they differ, for secrets and signatures.
--- Their lengths are no secret.
--- @return whether they are the same
--- @example
---   local same = gate.equal("secret", "secreT")          -- false
function gate.equal(a, b)
  if type(a) ~= "string" then wrong("gate.equal", "two strings", a) end
  if type(b) ~= "string" then wrong("gate.equal", "two strings", b) end
  return c_equal(a, #a, b, #b) ~= 0
end

-- Scripts hold a number that stands for the key; the pointers stay here.
local keys = {}
local key_methods = {}
local Key = { __index = key_methods, __metatable = "public key" }

local function key_object(key)
  if key == nil then fail(nil) end
  keys[#keys + 1] = ffi.gc(key, C.key_free)
  return setmetatable({ #keys }, Key)
end

--- gate.public_key(pem)
--- The public key of somebody else, to check what they have signed: PEM text of a key or of a certificate, RSA with
--- at least 2048 bits. gate.public_key_file(path): from a file, whose relative path begins at the configuration's folder;
--- a reload reads it again, as the workers' user. Only while the script loads.
--- @return an object with the method verify
--- @error for text or a file that holds none
--- @example
---   local ok = pcall(gate.public_key, "no key")          -- false
function gate.public_key(pem)
  if type(pem) ~= "string" then wrong("gate.public_key", "PEM as a string", pem) end
  if not core.loading then raise("public keys are made while a script loads, not in a hook") end
  local key = key_object(C.key_new(pem, #pem))
  return key
end
function gate.public_key_file(path)
  if type(path) ~= "string" then wrong("gate.public_key_file", "a path", path) end
  if not core.loading then raise("public keys are made while a script loads, not in a hook") end
  local key = key_object(C.key_load(path))
  return key
end

--- key:verify(name, text, signature)
--- @return whether the signature is one of the text by that key: RSASSA-PKCS1-v1_5 (RFC 8017, 8.2.2) with the digest
--- of that name (sha256, sha384, sha512; as gate.digest). RS256 of JSON Web Tokens is sha256
function key_methods.verify(t, name, text, signature)
  local kind = kind_of(name, "verify")
  if type(text) ~= "string" then wrong("verify", "a string", text) end
  if type(signature) ~= "string" then wrong("verify", "a signature as a string", signature) end
  local result = c_key_verify(keys[t[1]], kind, text, #text, signature, #signature)
  if result < 0 then fail(result) end
  return result == 1
end

gate.random = {}

local function random(count, what)
  if type(count) ~= "number" or count ~= floor(count) or count < 0 or count > RANDOM_MAX then
    raise(what .. ": expected a number of bytes from 0 to " .. RANDOM_MAX .. ", got " .. tostring(count))
  end
  local result = c_random_bytes(count, out)
  if result ~= OK then fail(result) end
end

--- gate.random.bytes(count)
--- @return so many bytes (0 to 65536) that nobody can foretell, from libcrypto; math.random() can be foretold
--- @example
---   local key = gate.random.bytes(32)
function gate.random.bytes(count)
  random(count, "gate.random.bytes")
  local bytes = ffi_string(out.at, out.len)
  return bytes
end

--- gate.random.integer(low, high)
--- @return a whole number from low to high, both included, each as likely as the others. The range has less
--- than 2^53 numbers
--- @example
---   local die = gate.random.integer(1, 6)
function gate.random.integer(low, high)
  if type(low) ~= "number" or low ~= floor(low) or type(high) ~= "number" or high ~= floor(high)
    or not (high >= low and high - low < 9007199254740992) then
    raise("gate.random.integer: expected two whole numbers, the first not above the second, got "
      .. tostring(low) .. " and " .. tostring(high))
  end
  local result = c_random_integer(high - low, out_number)
  if result ~= OK then fail(result) end
  return low + out_number[0]
end

--- gate.random.hex(count)
--- @return so many random bytes as hexadecimal digits, 16 bytes (32 digits) if left out: an id that nobody
--- has had before
--- @example
---   local id = gate.random.hex()
function gate.random.hex(count)
  random(count or 16, "gate.random.hex")
  local bytes = ffi_string(out.at, out.len)
  local result = c_encode(HEX, bytes, #bytes, out)
  if result ~= OK then fail(result) end
  local digits = ffi_string(out.at, out.len)
  return digits
end
