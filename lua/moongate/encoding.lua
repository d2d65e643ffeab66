-- SPDX-License-Identifier: BSD-2-Clause
-- gate.json, gate.base64 and gate.hex: values and bytes as text. JSON is lua-cjson's, the others libcrypto's.
local core = ...

local gate, C, ffi = core.parts.gate, core.parts.C, core.parts.ffi
local fail, wrong, raise = core.parts.fail, core.parts.wrong, core.parts.raise
local type, pcall, tostring, ffi_string = type, pcall, tostring, ffi.string
local OK, NONE = ffi.C.MG_OK, ffi.C.MG_NONE
local BASE64, BASE64URL, HEX = ffi.C.MG_BASE64, ffi.C.MG_BASE64URL, ffi.C.MG_HEX
local c_encode, c_decode = C.text_encode, C.text_decode
local out = ffi.new("struct mg_text")

local function encode(how, text, what)
  if type(text) ~= "string" then wrong(what, "a string", text) end
  local result = c_encode(how, text, #text, out)
  if result ~= OK then fail(result) end
  local encoded = ffi_string(out.at, out.len)
  return encoded
end

-- Text that is not of that form is nil and the message.
local function decode(how, text, what, message)
  if type(text) ~= "string" then wrong(what, "a string", text) end
  local result = c_decode(how, text, #text, out)
  if result == NONE then return nil, message end
  if result ~= OK then fail(result) end
  local decoded = ffi_string(out.at, out.len)
  return decoded
end

-- ---- base64 and hex ---------------------------------------------------------------------------------------

gate.base64, gate.hex = {}, {}

--- gate.base64.encode(text)
--- @return the bytes of a string as base64 (RFC 4648, section 4), padded with "="
--- @example
---   local text = gate.base64.encode("moon?")             -- "bW9vbj8="
function gate.base64.encode(text)
  local encoded = encode(BASE64, text, "gate.base64.encode")
  return encoded
end

--- gate.base64.decode(text)
--- @return the bytes, or nil and a message. Nothing is passed over: white space, a missing "=" and bits
--- behind the end that no encoder writes are errors, so that each value has one text
--- @example
---   local bytes = gate.base64.decode("bW9vbj8=")         -- "moon?"
---   local none  = gate.base64.decode("bW9v bj8=")        -- nil
function gate.base64.decode(text)
  local decoded, message = decode(BASE64, text, "gate.base64.decode", "not base64")
  return decoded, message
end

--- gate.base64.encode_url(text)
--- @return the bytes in the alphabet that is safe in URLs and names of files (RFC 4648, section 5), without
--- padding: what JSON web tokens have (RFC 7515, section 2)
--- @example
---   local text = gate.base64.encode_url("\255\254?")     -- "__4_"
function gate.base64.encode_url(text)
  local encoded = encode(BASE64URL, text, "gate.base64.encode_url")
  return encoded
end

--- gate.base64.decode_url(text)
--- @return the bytes, or nil and a message; padding is an error
--- @example
---   local bytes = gate.base64.decode_url("bW9vbj8")      -- "moon?"
function gate.base64.decode_url(text)
  local decoded, message = decode(BASE64URL, text, "gate.base64.decode_url", "not base64 for URLs")
  return decoded, message
end

--- gate.hex.encode(text)
--- @return two small hexadecimal digits for each byte of a string (RFC 4648, section 8)
--- @example
---   local digits = gate.hex.encode("moon")               -- "6d6f6f6e"
function gate.hex.encode(text)
  local encoded = encode(HEX, text, "gate.hex.encode")
  return encoded
end

--- gate.hex.decode(text)
--- @return the bytes, or nil and a message; digits may be large or small, and there is nothing between them
--- @example
---   local bytes = gate.hex.decode("6D6f6f6e")            -- "moon"
function gate.hex.decode(text)
  local decoded, message = decode(HEX, text, "gate.hex.decode", "not hexadecimal")
  return decoded, message
end

-- ---- JSON -------------------------------------------------------------------------------------------------

local DEPTH = 128
local cjson, missing = core.system_module("cjson")
if cjson then
  cjson.encode_max_depth(DEPTH)
  cjson.decode_max_depth(DEPTH)
  cjson.encode_keep_buffer(false)      -- a large text once must not cost its size for ever
  cjson.encode_number_precision(14)    -- the most that it takes
  cjson.encode_invalid_numbers(false)
  cjson.decode_invalid_numbers(false)
end

local function needed(what)
  if not cjson then raise(what .. " needs Lua's module cjson: " .. missing) end
end

--- gate.json.null
--- What null becomes in a decoded value, and what becomes null: tables cannot hold nil.
--- @example
---   local text = gate.json.encode { gate.json.null }     -- "[null]"
gate.json = { null = cjson and cjson.null }

--- gate.json.encode(value)
--- Writes a value of strings, numbers, booleans and tables as JSON (RFC 8259). A table whose keys are 1 to n
--- is an array, any other an object, and the empty one "{}". Numbers have 14 digits: longer ones, such as
--- ids, are better strings. Uses the package lua-cjson.
--- @return the text, or nil and a message: for a function, a number that JSON does not have (infinite, not a
--- number), an array with many holes, or tables more than 128 deep
--- @error when lua-cjson is not installed
--- @example
---   local text = gate.json.encode { 1, true, { name = "moon" } }   -- '[1,true,{"name":"moon"}]'
function gate.json.encode(value)
  needed("gate.json.encode")
  local ok, text = pcall(cjson.encode, value)
  if not ok then return nil, tostring(text) end
  return text
end

--- gate.json.decode(text)
--- Reads JSON. Of a name that is there twice the last value counts.
--- @return the value (gate.json.null for null), or nil and a message for text that is not JSON, or is more
--- than 128 deep
--- @error when lua-cjson is not installed
--- @example
---   local token = gate.json.decode('{"sub": "diana", "groups": ["admin"]}')
---   local group = token.groups[1]                        -- "admin"
function gate.json.decode(text)
  if type(text) ~= "string" then wrong("gate.json.decode", "a string", text) end
  needed("gate.json.decode")
  local ok, value = pcall(cjson.decode, text)
  if not ok then return nil, tostring(value) end
  return value
end
