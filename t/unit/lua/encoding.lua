-- SPDX-License-Identifier: BSD-2-Clause
-- base64 and hex with the vectors of RFC 4648, section 10, and texts that must be refused; JSON.
local gate = require "moongate"

local function is(got, expected)
  if got ~= expected then error("expected " .. tostring(expected) .. ", got " .. tostring(got), 2) end
end
local function refuses(message, call, ...)
  local ok, why = pcall(call, ...)
  if ok or not tostring(why):find(message, 1, true) then error("expected an error with " .. message .. ", got " .. tostring(why), 2) end
end

for plain, coded in pairs { [""] = "", f = "Zg==", fo = "Zm8=", foo = "Zm9v", foob = "Zm9vYg==", fooba = "Zm9vYmE=",
    foobar = "Zm9vYmFy" } do
  is(gate.base64.encode(plain), coded)
  is(gate.base64.decode(coded), plain)
  is(gate.base64.encode_url(plain), (coded:gsub("=", "")))
  is(gate.base64.decode_url((coded:gsub("=", ""))), plain)
end
is(gate.base64.encode("\251\255"), "+/8=")
is(gate.base64.encode_url("\251\255"), "-_8")
for plain, coded in pairs { [""] = "", f = "66", foobar = "666f6f626172", ["\0\255"] = "00ff" } do
  is(gate.hex.encode(plain), coded)
  is(gate.hex.decode(coded), plain)
  is(gate.hex.decode(coded:upper()), plain)
end

-- Every length, every byte, large ones too.
local all = {}
for i = 0, 255 do all[i + 1] = string.char(i) end
all = table.concat(all)
for length = 0, 300 do
  local plain = all:rep(2):sub(1, length)
  is(gate.base64.decode(gate.base64.encode(plain)), plain)
  is(gate.base64.decode_url(gate.base64.encode_url(plain)), plain)
  is(gate.hex.decode(gate.hex.encode(plain)), plain)
end
for _, size in ipairs { 4095, 4096, 4097, 3072, 3073, 100000, 4000001 } do
  local plain = all:rep(math.ceil(size / 256)):sub(1, size)
  is(gate.base64.decode(gate.base64.encode(plain)), plain)
  is(gate.base64.decode_url(gate.base64.encode_url(plain)), plain)
end

for _, bad in ipairs { "Z", "Zg", "Zg=", "Zm8", "=", "==", "====", "Zg==Zg==", "Zg== ", " Zg==", "Zg=\n=", "Zm\n9v", "Zm9-",
    "Zm9_", "Zh==", "Zm9=", "Z===", "Zg=v", "Zm9v\0", "\0\0\0\0", "Zm9\255", "Zm9vZ" } do
  local bytes, why = gate.base64.decode(bad)
  is(bytes, nil)
  is(why, "not base64")
end
for _, bad in ipairs { "Z", "Zg==", "Zm8=", "Zm9+", "Zm9/", "Zh", "Zm9", "Zm 9", "Zm9vZ", "Zg\0" } do
  if bad ~= "Zm9" then
    local bytes, why = gate.base64.decode_url(bad)
    is(bytes, nil)
    is(why, "not base64 for URLs")
  end
end
is(gate.base64.decode_url("Zm9"), nil)
for _, bad in ipairs { "6", "6g", "g6", "66 66", "66:66", "0x66", "6\0", "\255\255" } do
  local bytes, why = gate.hex.decode(bad)
  is(bytes, nil)
  is(why, "not hexadecimal")
end
refuses("gate.base64.encode: expected a string, got a number", gate.base64.encode, 5)
refuses("gate.base64.decode: expected a string, got nil", gate.base64.decode)
refuses("gate.base64.encode_url: expected a string, got a table", gate.base64.encode_url, {})
refuses("gate.base64.decode_url: expected a string", gate.base64.decode_url, true)
refuses("gate.hex.encode: expected a string", gate.hex.encode)
refuses("gate.hex.decode: expected a string", gate.hex.decode, 66)

-- ---- JSON
local json = gate.json
is(json.encode { 1, 2.5, "x", true, json.null }, '[1,2.5,"x",true,null]')
is(json.encode { a = "\"\\/\0\n" }, [[{"a":"\"\\\/\u0000\n"}]])
is(json.encode {}, "{}")
is(json.encode(99999999999999), "99999999999999")
is(json.encode "x", '"x"')
local value = json.decode '{"a":[1,{"b":null}],"c":"\\u00fc\\ud83c\\udf19","d":-1.5e3,"a2":[]}'
is(value.a[1], 1)
is(value.a[2].b, json.null)
is(value.c, "ü🌙")
is(value.d, -1500)
is(#value.a2, 0)
for _, bad in ipairs { "", " ", "{", "[1,]", "{'a':1}", "nul", "[1] x", "NaN", "[Infinity]", "0x10", "\"\\ud83c\"", "{\"a\"}", "\0",
    ("["):rep(200) .. ("]"):rep(200), ("["):rep(1000000) } do
  local got, why = json.decode(bad)
  is(got, nil)
  is(type(why), "string")
end
is(#json.decode(("["):rep(128) .. ("]"):rep(128)), 1)
local deep = {}
for _ = 1, 200 do deep = { deep } end
local circle = {}
circle.circle = circle
for _, bad in ipairs { deep, circle, 0 / 0, 1 / 0, print, { print }, { [1] = 1, [1000000] = 2 }, { [true] = 1 } } do
  local got, why = json.encode(bad)
  is(got, nil)
  is(type(why), "string")
end
refuses("gate.json.decode: expected a string, got a table", json.decode, {})

return {}
