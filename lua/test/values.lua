-- SPDX-License-Identifier: BSD-2-Clause
-- Values as text for lua/test.lua: as Lua would write them, as YAML, and where two of them differ.
local rig = ...

local concat, max = table.concat, math.max

local function quote(text)
  return '"' .. text:gsub('[%c"\\\127]', function(c)
    local known = { ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t", ['"'] = '\\"', ["\\"] = "\\\\" }
    return known[c] or ("\\x%02x"):format(c:byte())
  end) .. '"'
end

local function key_text(key)
  return type(key) == "string" and key:match("^[%a_][%w_]*$") or "[" .. (type(key) == "string" and quote(key)
    or tostring(key)) .. "]"
end

local function sorted_keys(t)
  local keys = {}
  for key in pairs(t) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b)
    if type(a) == type(b) and (type(a) == "number" or type(a) == "string") then return a < b end
    return tostring(a) < tostring(b)
  end)
  return keys
end

local function show(value, indent, seen)
  if type(value) == "string" then return quote(value) end
  if type(value) ~= "table" then return tostring(value) end
  indent, seen = indent or "", seen or {}
  if seen[value] then return "(itself)" end
  seen[value] = true
  local parts, length = {}, 0
  for i, key in ipairs(sorted_keys(value)) do
    local shown = show(value[key], indent .. "  ", seen)
    parts[i] = type(key) == "number" and key == i and shown or key_text(key) .. " = " .. shown
    length = length + #parts[i] + 2
  end
  seen[value] = nil
  if #parts == 0 then return "{}" end
  if length < 70 and not concat(parts):find("\n", 1, true) then return "{ " .. concat(parts, ", ") .. " }" end
  return "{\n" .. indent .. "  " .. concat(parts, ",\n" .. indent .. "  ") .. ",\n" .. indent .. "}"
end

-- The first place where two values differ: its path, got, expected. Nothing when they are the same.
local function difference(got, expected, path, seen)
  if rawequal(got, expected) or (got ~= got and expected ~= expected) then return end
  if type(got) ~= "table" or type(expected) ~= "table" then return path, got, expected end
  seen = seen or {}
  if seen[got] == expected then return end
  seen[got] = expected
  local keys = {}
  for key in pairs(expected) do keys[key] = true end
  for key in pairs(got) do keys[key] = true end
  for _, key in ipairs(sorted_keys(keys)) do
    local step = key_text(key)
    local at, one, other = difference(got[key], expected[key],
      path .. (step:sub(1, 1) == "[" and "" or ".") .. step, seen)
    if at then return at, one, other end
  end
end

-- For long texts: where they part.
local function parting(got, expected)
  if type(got) ~= "string" or type(expected) ~= "string" or max(#got, #expected) < 40 then return end
  local line, start, at = 1, 1, 1
  while at <= #got and at <= #expected and got:byte(at) == expected:byte(at) do
    if got:byte(at) == 10 then line, start = line + 1, at + 1 end
    at = at + 1
  end
  local function around(text)
    local from = max(start, at - 30)
    return quote(text:sub(from, at + 30):match("^[^\n]*"))
  end
  return ("line %d, column %d\nexpected %s\ngot      %s"):format(line, at - start + 1, around(expected),
    around(got))
end

local function yaml(name, value)
  if type(value) == "string" and value:find("\n", 1, true) and not value:find("[%z\1-\8\11-\31\127]") then
    return name .. ": |\n  " .. value:gsub("\n+$", ""):gsub("\n", "\n  ") .. "\n"
  end
  if type(value) == "number" then return name .. ": " .. value .. "\n" end
  return name .. ": " .. quote(tostring(value)) .. "\n"
end

rig.quote = quote
rig.sorted_keys = sorted_keys
rig.show = show
rig.difference = difference
rig.parting = parting
rig.yaml = yaml
