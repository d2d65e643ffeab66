-- SPDX-License-Identifier: BSD-2-Clause
-- Heads and bodies for lua/test.lua: from the tables of a test to the wire and back.
local rig = ...

local misuse, quote, show, sorted_keys = rig.misuse, rig.quote, rig.show, rig.sorted_keys
local concat = table.concat

local function field_text(value, what)
  if type(value) == "number" or type(value) == "boolean" then value = tostring(value) end
  if type(value) ~= "string" then misuse(what .. ": expected a string, got a " .. type(value)) end
  if value:find("[\r\n%z]") then misuse(what .. " has a line break or a zero byte: " .. quote(value)) end
  return value
end

-- headers: { name = value or { values }, "Name: value", ... }; lines are added, names in lower case to `has`.
local function add_fields(lines, headers, has)
  if headers == nil then return end
  if type(headers) ~= "table" then misuse("headers: expected a table, got a " .. type(headers)) end
  for _, key in ipairs(sorted_keys(headers)) do
    local value = headers[key]
    if type(key) == "number" then
      local line = field_text(value, "a header field")
      local name = line:match("^([^:%s]+):")
        or misuse('bad header field "' .. line .. '": expected "Name: value"')
      has[name:lower()] = true
      lines[#lines + 1] = line
    else
      has[key:lower()] = true
      if value ~= false then
        for _, one in ipairs(type(value) == "table" and value or { value }) do
          lines[#lines + 1] = key .. ": " .. field_text(one, 'the header field "' .. key .. '"')
        end
      end
    end
  end
end

local Fields = {}
function Fields.__index(t, name)
  return type(name) == "string" and rawget(t, name:lower()) or nil
end

-- A head as on the wire: its first line, fields by name in lower case (repeated ones joined by ", ").
local function parse_head(head)
  local first, rest = head:match("^(.-)\r\n(.*)$")
  if not first then return nil end
  local fields = setmetatable({}, Fields)
  for name, value in rest:gmatch("([^\r\n:]+):%s*([^\r\n]*)\r\n") do
    name = name:lower()
    local before = rawget(fields, name)
    rawset(fields, name, before and before .. ", " .. value or value)
  end
  return first, fields
end

-- Pieces of a body: a string, a list of strings, or nil. Numbers in a server's are pauses.
local function pieces_of(body, pauses)
  if body == nil then return {} end
  if type(body) == "string" then return { body } end
  if type(body) ~= "table" then
    misuse("body: expected a string or a list of pieces, got a " .. type(body))
  end
  local pieces = {}
  for i, piece in ipairs(body) do
    if type(piece) ~= "string" and not (pauses and type(piece) == "number") then
      misuse("body: piece " .. i .. " is a " .. type(piece) .. ", expected a string")
    end
    pieces[i] = piece
  end
  return pieces
end

local function check_keys(t, known, what)
  for key in pairs(t) do
    if type(key) ~= "string" or not known[key] then
      misuse(("%s has no field %s, expected one of %s"):format(what, show(key),
        concat(sorted_keys(known), ", ")))
    end
  end
end

rig.field_text = field_text
rig.add_fields = add_fields
rig.parse_head = parse_head
rig.pieces_of = pieces_of
rig.check_keys = check_keys
