-- SPDX-License-Identifier: BSD-2-Clause
-- Digests with the examples of FIPS 180 and RFC 1321, HMAC with those of RFC 4231 and RFC 2202, SipHash with those of
-- its paper; random numbers.
local gate = require "moongate"
local hex = gate.hex.encode

local function is(got, expected)
  if got ~= expected then error("expected " .. tostring(expected) .. ", got " .. tostring(got), 2) end
end
local function refuses(message, call, ...)
  local ok, why = pcall(call, ...)
  if ok or not tostring(why):find(message, 1, true) then error("expected an error with " .. message .. ", got " .. tostring(why), 2) end
end

is(hex(gate.sha256 "abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
is(hex(gate.sha256 ""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
is(hex(gate.sha256 "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
  "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1")
is(hex(gate.sha256(("a"):rep(1000000))), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0")
is(hex(gate.digest("sha1", "abc")), "a9993e364706816aba3e25717850c26c9cd0d89d")
is(hex(gate.digest("sha224", "abc")), "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7")
is(hex(gate.digest("sha384", "abc")), "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed"
  .. "8086072ba1e7cc2358baeca134c825a7")
is(hex(gate.digest("sha512", "abc")), "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
  .. "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f")
is(hex(gate.digest("md5", "message digest")), "f96b697d7cb7938d525a2f31aaf161d0")

-- RFC 4231, 4.2 to 4.8 (4.6 is of a cut result).
local function hmac(key, text, sha256, sha512)
  is(hex(gate.hmac("sha256", key, text)), sha256)
  is(hex(gate.hmac("sha512", key, text)), sha512)
end
hmac(("\11"):rep(20), "Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
  "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cdedaa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854")
hmac("Jefe", "what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
  "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737")
hmac(("\170"):rep(20), ("\221"):rep(50), "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
  "fa73b0089d56a284efb0f0756c890be9b1b5dbdd8ee81a3655f83e33b2279d39bf3e848279a722c806b485a47e67c807b946a337bee8942674278859e13292fb")
hmac(("\170"):rep(131), "Test Using Larger Than Block-Size Key - Hash Key First",
  "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
  "80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f3526b56d037e05f2598bd0fd2215d6a1e5295e64f73f63f0aec8b915a985d786598")
hmac(("\170"):rep(131), "This is a test using a larger than block-size key and a larger than block-size data. "
  .. "The key needs to be hashed before being used by the HMAC algorithm.",
  "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
  "e37b6a775dc87dbaa4dfa9f96e5e3ffddebd71f8867289865df5a32d20cdc944b6022cac3c4982b10d5eeb55c3e4de15134676fb6de0446065c97440fa8c6a58")
is(hex(gate.hmac("sha1", ("\11"):rep(20), "Hi There")), "b617318655057264e28bc0b6fb378c8ef146be00")
-- Without a key, and another one before: a key is never that of the call before.
is(hex(gate.hmac("sha256", "", "")), "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad")

-- The first two of the reference's vectors: key 00 to 0f, texts "" and 00.
local key = {}
for i = 0, 15 do key[i + 1] = string.char(i) end
key = table.concat(key)
is(hex(gate.siphash(key, "")), "310e0edd47db6f72")
is(hex(gate.siphash(key, "\0")), "fd67dc93c539f874")
is(hex(gate.siphash(key, key:sub(1, 15))), "e545be4961ca29a1")

is(gate.equal("", ""), true)
is(gate.equal("abc", "abc"), true)
is(gate.equal("abc", "abd"), false)
is(gate.equal("abc", "abcd"), false)
is(gate.equal("a\0b", "a\0c"), false)

is(#gate.random.bytes(0), 0)
is(#gate.random.bytes(65536), 65536)
is(gate.random.bytes(16) == gate.random.bytes(16), false)
is(#gate.random.hex(), 32)
is(gate.random.hex(3):match("^%x%x%x%x%x%x$") ~= nil, true)
local seen = {}
for _ = 1, 2000 do
  local number = gate.random.integer(-2, 3)
  assert(number >= -2 and number <= 3 and number % 1 == 0)
  seen[number] = (seen[number] or 0) + 1
end
for number = -2, 3 do assert(seen[number] > 200, "a number comes too rarely") end
is(gate.random.integer(7, 7), 7)
local large = gate.random.integer(0, 9007199254740991)
assert(large >= 0 and large <= 9007199254740991)

refuses("gate.sha256: expected a string, got nil", gate.sha256)
refuses('gate.digest: expected md5, sha1, sha224, sha256, sha384 or sha512, got "sha3"', gate.digest, "sha3", "")
refuses("gate.digest: expected md5", gate.digest, nil, "")
refuses("gate.digest: expected a string", gate.digest, "md5", 5)
refuses("gate.hmac: expected md5", gate.hmac, "x", "", "")
refuses("gate.hmac: expected a key as a string, got nil", gate.hmac, "sha256")
refuses("gate.hmac: expected a string, got nil", gate.hmac, "sha256", "key")
refuses("gate.siphash: expected a key of 16 bytes, got 3", gate.siphash, "key", "")
refuses("gate.siphash: expected a key", gate.siphash)
refuses("gate.equal: expected two strings, got nil", gate.equal, "a")
refuses("gate.random.bytes: expected a number of bytes from 0 to 65536, got -1", gate.random.bytes, -1)
refuses("got 65537", gate.random.bytes, 65537)
refuses("got 1.5", gate.random.bytes, 1.5)
refuses("got nan", gate.random.bytes, 0 / 0)
refuses("gate.random.integer: expected two whole numbers", gate.random.integer, 2, 1)
refuses("gate.random.integer: expected two whole numbers", gate.random.integer, 0, 2 ^ 53)
refuses("gate.random.integer: expected two whole numbers", gate.random.integer, 0, 1 / 0)
refuses("gate.random.integer: expected two whole numbers", gate.random.integer, 5)

return {}
