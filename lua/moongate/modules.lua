-- SPDX-License-Identifier: BSD-2-Clause
-- The modules of the system that scripts may require although they stand in no folder of scripts: which they
-- are, and a copy of one for each script, so that what a script changes in it no other sees. Runs first of
-- lua/moongate/; src/script/sandbox.lua's require and encoding.lua ask for core.system_module().
local core = ...

local real_require, pcall, type, pairs, tostring = require, pcall, type, pairs, tostring
local getmetatable, ipairs, sort, concat = getmetatable, ipairs, table.sort, table.concat
local getmeta = debug.getmetatable

-- Nothing is loaded from whatever folder moongate was started in.
for _, name in ipairs { "path", "cpath" } do
  local kept = {}
  for template in package[name]:gmatch("[^;]+") do
    if template:sub(1, 1) == "/" then kept[#kept + 1] = template end
  end
  package[name] = concat(kept, ";")
end

local function shallow(module)
  local copy = {}
  for name, value in pairs(module) do copy[name] = value end
  return copy
end

-- The methods of patterns are one table for the whole state: out of reach, once re has taken them from there.
local function lock_patterns()
  pcall(real_require, "re")
  getmeta(real_require("lpeg").P(true)).__metatable = "pattern"
end

-- name: the Debian package (nil: part of LuaJIT), a function that gives a script its own
local known = {
  ["cjson"] = { "lua-cjson", function(module) return module.new() end },
  ["cjson.safe"] = { "lua-cjson", function(module) return module.new() end },
  ["lpeg"] = { "lua-lpeg", function(module) lock_patterns() return shallow(module) end },
  ["re"] = { "lua-lpeg", function(module) lock_patterns() return shallow(module) end },
  ["table.new"] = { nil, function(module) return module end },
  ["table.clear"] = { nil, function(module) return module end },
}
local names = {}
for name in pairs(known) do names[#names + 1] = name end
sort(names)
core.system_modules = concat(names, ", ")

-- A copy of the module; nil when a script may not have it; or nil and why it cannot be loaded.
function core.system_module(name)
  local entry = known[name]
  if not entry then return nil end
  local ok, module = pcall(real_require, name)
  if not ok then
    local why = tostring(module):match("^[^\n]*")
    if not why:find("module '" .. name .. "' not found", 1, true) then return nil, why end
    return nil, "not installed" .. (entry[1] and " (Debian: apt-get install " .. entry[1] .. ")" or "")
  end
  if type(module) ~= "table" and entry[1] then return nil, "it is no table" end
  return entry[2](module)
end
