-- SPDX-License-Identifier: BSD-2-Clause
-- Assertions for lua/test.lua, and how they fail: with what was expected, what there was, and the line of the
-- test. Blocks of --- are moongate-lua(7).
local rig = ...

local test = rig.test
local show, difference, parting = rig.show, rig.difference, rig.parting
local concat = table.concat

local Failure = {}  -- the metatable of what a failed assertion raises

-- The caller's line: the first that is not of these files.
local function caller()
  local level = 2
  while true do
    local info = debug.getinfo(level, "Sl")
    if not info then return rig.path, 0 end
    if info.currentline >= 0 and not info.source:find("^=moongate%.test") then
      return info.source:gsub("^@", ""), info.currentline
    end
    level = level + 1
  end
end

-- Without the lines of these files and of Lua's own functions that called them.
local function trim_trace(text)
  local kept = {}
  for line in (text or ""):gmatch("[^\n]+") do
    local at = line:match("^%s+(.*)$")
    if at and not at:find("^moongate[%w.]*:") and not at:find("^sandbox:") and not at:find("^%[C%]:") then
      kept[#kept + 1] = at
    end
  end
  return #kept > 0 and concat(kept, "\n") or nil
end

local function raise(failure)
  failure.file, failure.line = caller()
  failure.trace = trim_trace(debug.traceback("", 2))
  error(setmetatable(failure, Failure), 0)
end

-- What is said of a test's use of this module that makes no sense: an error at its line.
local function misuse(message)
  raise { message = message }
end

-- ---- assertions -------------------------------------------------------------------------------------------

local function named(what, text)
  return what and tostring(what) .. ": " .. text or text
end

--- test.equal(got, expected, what)
--- Fails unless both are the same value (==). what, which may be left out here and below, says in words what
--- is compared.
--- @example
---   test.equal(answer.status, 403, "an address that is denied")
function test.equal(got, expected, what)
  if got == expected then return end
  raise { message = named(what, "the values differ"), expected = show(expected), got = show(got),
    difference = parting(got, expected) }
end

--- test.same(got, expected, what)
--- Fails unless both are equal, or are tables with the same keys and the same values, however deep. The first
--- difference is named.
function test.same(got, expected, what)
  local at, one, other = difference(got, expected, "")
  if not at then return end
  raise { message = named(what, at == "" and "the values differ" or "the tables differ at " .. at),
    expected = show(expected), got = show(got),
    difference = at ~= "" and ("%s\nexpected %s\ngot      %s"):format(at, show(other), show(one))
      or parting(one, other) }
end

-- Plain text, or a Lua pattern; a bad pattern is text.
local function found(text, pattern)
  if text:find(pattern, 1, true) then return true end
  local ok, at = pcall(string.find, text, pattern)
  return ok and at ~= nil
end

--- test.matches(text, pattern, what)
--- Fails unless pattern stands somewhere in text, as it is or as a Lua pattern.
function test.matches(text, pattern, what)
  if type(text) == "string" and found(text, pattern) then return end
  raise { message = named(what, "the text does not match"), expected = pattern,
    got = type(text) == "string" and text or show(text) }
end

--- test.truthy(value, what)
--- test.falsy(value, what)
--- Fail unless the value is anything but nil and false, or is one of these.
function test.truthy(value, what)
  if value then return end
  raise { message = named(what, "the value is " .. tostring(value)), expected = "anything but nil and false",
    got = show(value) }
end

function test.falsy(value, what)
  if not value then return end
  raise { message = named(what, "there is a value"), expected = "nil or false", got = show(value) }
end

--- test.error(function, pattern)
--- Fails unless the function raises an error, whose text matches if a pattern is given (as in test.matches).
--- @return the text of the error
--- @example
---   test.error(function() test.script("ratelimit.lua", {}) end, "rate=NUMBER")
function test.error(fn, pattern)
  local ok, why = pcall(fn)
  if ok then raise { message = "no error was raised", expected = pattern or "an error" } end
  local text = getmetatable(why) == Failure and why.message or tostring(why)
  if pattern and not found(text, pattern) then
    raise { message = "the error is another one", expected = pattern, got = text }
  end
  return text
end

--- test.fail(message)
--- Fails.
function test.fail(message)
  raise { message = tostring(message or "failed") }
end

--- test.skip(reason)
--- Ends the test; it counts as passed and is shown as skipped.
function test.skip(reason)
  error(setmetatable({ skip = tostring(reason or ""):gsub("\n.*", "") }, Failure), 0)
end

rig.Failure = Failure
rig.caller = caller
rig.trim_trace = trim_trace
rig.raise = raise
rig.misuse = misuse
rig.found = found
