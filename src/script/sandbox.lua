-- SPDX-License-Identifier: BSD-2-Clause
-- The world that a script sees: its globals (a chosen part of the libraries, in copies of its own), require,
-- and the check for globals that are written or undefined, made on the compiled code before it runs. Runs
-- after lua/moongate.lua in the same Lua state; src/script/state.c calls core.check and core.load.
local core = ...

local raise = core.raise
local load, pcall, error, type, tostring, pairs, ipairs = load, pcall, error, type, tostring, pairs, ipairs
local rawget, setmetatable, getmetatable, real_require, collectgarbage =
  rawget, setmetatable, getmetatable, require, collectgarbage
local create, resume, yield = coroutine.create, coroutine.resume, coroutine.yield
local getinfo, concat, floor = debug.getinfo, table.concat, math.floor
local WAIT = core.wait
local real = _G

-- What strings are asked for with ":" is the same for all scripts; nobody gets at the table itself.
getmetatable("").__metatable = "string"

-- ---- coroutines of a script's own -------------------------------------------------------------------------

-- A call that waits inside of a coroutine that a script made passes its wait on to the hook's own, and is
-- resumed from there.
local function passed_on(co, ok, first, ...)
  if ok and first == WAIT then
    yield(WAIT)
    return passed_on(co, resume(co))
  end
  return ok, first, ...
end

local function script_resume(co, ...)
  return passed_on(co, resume(co, ...))
end

local function unwrap(ok, ...)
  if ok then return ... end
  error((...), 0)
end

local function script_wrap(fn)
  local co = create(fn)
  return function(...) return unwrap(script_resume(co, ...)) end
end

-- ---- globals ----------------------------------------------------------------------------------------------

local base_names = { "_VERSION", "assert", "error", "getmetatable", "ipairs", "next", "pairs", "pcall",
  "rawequal", "rawget", "rawset", "select", "setmetatable", "tonumber", "tostring", "type", "unpack",
  "xpcall" }
local libraries = {
  string = { "byte", "char", "find", "format", "gmatch", "gsub", "len", "lower", "match", "rep", "reverse",
    "sub", "upper" },
  table = { "concat", "foreach", "foreachi", "getn", "insert", "maxn", "move", "remove", "sort" },
  math = { "abs", "acos", "asin", "atan", "atan2", "ceil", "cos", "cosh", "deg", "exp", "floor", "fmod",
    "frexp", "huge", "ldexp", "log", "log10", "max", "min", "mod", "modf", "pi", "pow", "rad", "random",
    "randomseed", "sin", "sinh", "sqrt", "tan", "tanh" },
  bit = { "arshift", "band", "bnot", "bor", "bswap", "bxor", "lshift", "rol", "ror", "rshift", "tobit",
    "tohex" },
  os = { "clock", "date", "difftime", "time" },
  debug = { "traceback" },
  coroutine = { "create", "isyieldable", "resume", "running", "status", "wrap", "yield" },
}

local function pick(from, names)
  local picked = {}
  for _, name in ipairs(names) do picked[name] = from[name] end
  return picked
end

-- What no folder of scripts has. Only while a script loads: what is on the disk may have changed since, and
-- reading it would hold up the worker.
local function require_system(module, not_found)
  if core.unsafe then return real_require(module) end
  if not core.loading then
    raise(not_found .. "; modules of the system are loaded while a script loads, not in a hook")
  end
  local value, why = core.system_module(module)
  if value ~= nil then return value end
  if why then raise(not_found .. "; " .. why) end
  raise(not_found .. "; of the system's modules a script may load " .. core.system_modules
    .. ": put others into such a folder, or set script_unsafe on")
end

-- Globals of one script. Everything in them is its own copy.
local function make_globals(name)
  local globals = pick(real, base_names)
  for library, names in pairs(libraries) do
    globals[library] = core.unsafe and pick(real[library], (function()
      local all = {}
      for key in pairs(real[library]) do all[#all + 1] = key end
      return all
    end)()) or pick(real[library], names)
  end
  globals.coroutine.resume = script_resume
  globals.coroutine.wrap = script_wrap
  if core.unsafe then
    for key, value in pairs(real) do
      if rawget(globals, key) == nil then globals[key] = value end
    end
    globals._G = globals
  end

  local gate = core.make_gate(name)
  globals.print = gate.log.info
  -- The same clock for both.
  local os_time, os_date = globals.os.time, globals.os.date
  function globals.os.time(date)
    if date ~= nil then return os_time(date) end
    return floor(gate.now())
  end
  function globals.os.date(format, at) return os_date(format, at or floor(gate.now())) end

  function globals.collectgarbage(option)
    if option == nil or option == "count" or core.unsafe then return collectgarbage(option or "count") end
    raise('collectgarbage: expected "count"')
  end

  -- Text alone: bytecode could do anything.
  function globals.load(chunk, chunk_name, mode, env)
    if type(chunk) == "function" then
      local parts = {}
      repeat
        local part = chunk()
        parts[#parts + 1] = part
      until part == nil or part == ""
      chunk = concat(parts)
    end
    return load(chunk, chunk_name or "=(load)", core.unsafe and mode or "t", env or globals)
  end
  function globals.loadstring(text, chunk_name) return globals.load(text, chunk_name) end

  local loaded = { moongate = gate }
  for library in pairs(libraries) do loaded[library] = globals[library] end
  local loading = {}
  function globals.require(module)
    if type(module) ~= "string" then raise("require: expected a module's name, got a " .. type(module)) end
    if core.on_require then core.on_require(module) end
    local value = loaded[module]
    if value ~= nil then return value end
    if loading[module] then raise('module "' .. module .. '" requires itself') end
    local text, path = core.read_module(module)
    if not text then
      value = require_system(module, path)
    else
      local fn = core.compile(text, path, globals)
      loading[module] = true
      value = fn(module)
      loading[module] = nil
      if value == nil then value = true end
    end
    loaded[module] = value
    return value
  end

  setmetatable(globals, {
    __metatable = "globals",
    __index = function(_, key) raise('undefined global "' .. tostring(key) .. '"') end,
    __newindex = function(_, key)
      raise('write to the global "' .. tostring(key) .. '": declare it local')
    end,
  })
  return globals
end

-- ---- the check of compiled code ---------------------------------------------------------------------------

local util = real_require "jit.util"
local band, rshift = bit.band, bit.rshift

-- The numbers of the two instructions, learnt from a sample, because they differ between versions of LuaJIT.
local function opcode(sample, at)
  local fn = load(sample)
  local instruction = util.funcbc(fn, at)
  if instruction and util.funck(fn, -rshift(instruction, 16) - 1) == "sample" then
    return band(instruction, 0xff)
  end
end
local GSET, GGET = opcode("sample = 1", 2), opcode("return sample", 1)

-- Calls visit(line, name, written) for each place in the code that reads or writes a global.
local function each_global(fn, visit)
  local pc = 1
  while true do
    local instruction = util.funcbc(fn, pc)
    if not instruction then break end
    local op = band(instruction, 0xff)
    if op == GSET or op == GGET then
      local name = util.funck(fn, -rshift(instruction, 16) - 1)
      visit(util.funcinfo(fn, pc).currentline, name, op == GSET)
    end
    pc = pc + 1
  end
  local index = -1
  while true do
    local constant = util.funck(fn, index)
    if constant == nil then return end
    if type(constant) == "proto" then each_global(constant, visit) end
    index = index - 1
  end
end
core.each_global = each_global

-- Globals that every script has, for examine.lua.
function core.known_globals() return make_globals("") end

-- The first line that writes a global or reads one that is not in `globals`: line, message.
local function find_global(fn, globals)
  local first, message
  each_global(fn, function(line, name, written)
    if (written or rawget(globals, name) == nil) and (not first or line < first) then
      first = line
      message = written and 'write to the global "' .. name .. '": declare it local'
        or 'undefined global "' .. name .. '"'
    end
  end)
  return first, message
end

-- ---- loading ----------------------------------------------------------------------------------------------

-- Long names of chunks are cut in Lua's messages; these are the whole ones.
local full_paths = {}
local function full(message)
  message = tostring(message)
  local short, rest = message:match("^(.-)(:%d+:.*)$")
  return short and full_paths[short] and full_paths[short] .. rest or message
end

function core.compile(text, path, globals, name)
  local fn, message = load(text, "@" .. (name or path), "t", globals)
  if not fn then
    if text:sub(1, 1) == "\27" then
      message = path .. ":1: this is bytecode, expected the text of a script"
    end
    -- The name in the message is cut if it is long: its tail tells.
    error(path .. (message:match("(:%d+: .*)$") or ": " .. message), 0)
  end
  local short = getinfo(fn, "S").short_src
  full_paths[short] = path
  local line, what = find_global(fn, globals)
  if line then error(path .. ":" .. line .. ": " .. what, 0) end
  return fn
end

local function distance(a, b)
  local row = {}
  for j = 0, #b do row[j] = j end
  for i = 1, #a do
    local corner = row[0]
    row[0] = i
    for j = 1, #b do
      local cost = a:byte(i) == b:byte(j) and 0 or 1
      local best = math.min(row[j] + 1, row[j - 1] + 1, corner + cost)
      corner = row[j]
      row[j] = best
    end
  end
  return row[#b]
end

local function check_hooks(path, hooks)
  if type(hooks) ~= "table" then
    error(path .. ": the script returned " .. (hooks == nil and "nothing" or "a " .. type(hooks)) ..
      ", expected a table of hooks (\"return hooks\" as its last line)", 0)
  end
  local known = {}
  for _, name in ipairs(core.hooks) do known[name] = true end
  for name, hook in pairs(hooks) do
    if not known[name] then
      local nearest, best = nil, 4
      for _, candidate in ipairs(core.hooks) do
        local d = distance(tostring(name), candidate)
        if d < best then nearest, best = candidate, d end
      end
      local at = type(hook) == "function" and path .. ":" .. getinfo(hook, "S").linedefined or path
      error(at .. ': unknown hook "' .. tostring(name) .. '", ' ..
        (nearest and 'did you mean "' .. nearest .. '"?'
          or "expected one of " .. concat(core.hooks, ", ")), 0)
    end
    if type(hook) ~= "function" then
      error(path .. ': the hook "' .. name .. '" is a ' .. type(hook) .. ", expected a function", 0)
    end
  end
  return hooks
end

-- Both return nil and "file:line: why" on an error.
function core.check(text, name, path)
  local ok, message = pcall(core.compile, text, path, make_globals(name), name)
  if not ok then return nil, tostring(message) end
  return true
end

function core.load(text, name, path, settings)
  core.loading = true
  local ok, result = pcall(function()
    local fn = core.compile(text, path, make_globals(name), name)
    return check_hooks(path, fn(settings))
  end)
  core.loading = false
  if ok then return result end
  result = full(result)
  if result:sub(1, #path) ~= path then result = path .. ": " .. result end
  return nil, result
end
