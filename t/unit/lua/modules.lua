-- SPDX-License-Identifier: BSD-2-Clause
-- The modules of the system that a script may load: which, that each script has its own, and that they lead to nothing
-- outside of the sandbox.
local function refuses(message, call, ...)
  local ok, why = pcall(call, ...)
  if ok or not tostring(why):find(message, 1, true) then error("expected an error with " .. message .. ", got " .. tostring(why), 2) end
end

local cjson, safe, lpeg, re = require "cjson", require "cjson.safe", require "lpeg", require "re"
assert(cjson.decode("[1]")[1] == 1 and cjson == require "cjson")
assert(safe.decode("[") == nil)
assert(lpeg.match(lpeg.C(lpeg.R("az") ^ 1), "moon1") == "moon")
assert(re.match("moon", "{ 'm' 'o'* } 'n'") == "moo")
assert(require "table.new"(1, 1))

-- What this script sets up is not what gate.json uses.
cjson.encode_max_depth(1)
cjson.decode = nil
local gate = require "moongate"
assert(gate.json.encode { { {} } } == "[[{}]]" and gate.json.decode("[[[]]]"))

-- The methods that all patterns share cannot be reached.
assert(getmetatable(lpeg.P(1)) == "pattern")
lpeg.P = nil
assert(re.compile("'a'"):match("a") == 2)

for _, name in ipairs { "ffi", "io", "os.execute", "jit", "jit.util", "jit.opt", "package", "socket", "cjson.util", "lpeglabel",
    "table.isarray", "string.buffer", "_G", "moongate.shared", "strict", "dis_x86" } do
  refuses("of the system's modules a script may load cjson, cjson.safe, lpeg, re, table.clear, table.new", require, name)
end
for _, name in ipairs { "../cjson", "/etc/passwd", "cjson/../ffi", "a..b", ".cjson", "cjson.", "cjson\0", "", "./cjson", "lpeg/" } do
  refuses("no module", require, name)
end
refuses("require: expected a module's name, got a table", require, {})

return {
  request = function()
    assert(require "cjson" == cjson)
    local late = pcall(require, "table.nothing")
    assert(not late)
  end,
}
