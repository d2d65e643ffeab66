-- SPDX-License-Identifier: BSD-2-Clause
-- moongate --check-script: loads one script in its sandbox and tells what it is made of. Runs behind
-- lua/moongate.lua and sandbox.lua in a state of its own; src/script/examine.c calls the function that it
-- returns.
local core = ...

local concat, sort, getinfo = table.concat, table.sort, debug.getinfo

local function json(value)
  if type(value) == "string" then
    return '"' .. value:gsub('[%c"\\\127]', function(c) return ("\\u%04x"):format(c:byte()) end) .. '"'
  elseif type(value) ~= "table" then
    return tostring(value)
  end
  local parts = {}
  if value[1] ~= nil or next(value) == nil then
    for i, one in ipairs(value) do parts[i] = json(one) end
    return "[" .. concat(parts, ", ") .. "]"
  end
  local keys = {}
  for key in pairs(value) do keys[#keys + 1] = key end
  sort(keys)
  for i, key in ipairs(keys) do parts[i] = json(key) .. ": " .. json(value[key]) end
  return "{" .. concat(parts, ", ") .. "}"
end

-- A list of names without repetitions, in the order of their first use.
local function collector()
  local list, seen = {}, {}
  return list, function(name)
    if not seen[name] then
      seen[name] = true
      list[#list + 1] = name
    end
  end
end

-- Every wrong use of a global, not only the first, which is all that the loader tells.
local function find_globals(text, path, known)
  local fn = load(text, "@" .. path, "t")
  if not fn then return {}, {} end
  local wrong, used, seen = {}, {}, {}
  core.each_global(fn, function(line, name, written)
    if not written and rawget(known, name) ~= nil then
      if not seen[name] then
        seen[name] = true
        used[#used + 1] = name
      end
    else
      wrong[#wrong + 1] = { line = line, name = name,
        what = written and "written: declare it local" or "undefined" }
    end
  end)
  sort(wrong, function(a, b) return a.line < b.line end)
  sort(used)
  return wrong, used
end

-- What the script does with the module while it loads: settings that it declares, dictionaries that it asks
-- for.
local function watch(settings, report)
  local modules, module = collector()
  local dictionaries, dictionary = collector()
  local read, by_name = {}, {}
  local function setting(name, kind)
    local known = by_name[name]
    if not known then
      known = { name = name, given = rawget(settings, name) }
      by_name[name] = known
      read[#read + 1] = known
    end
    known.type = known.type or kind
  end
  setmetatable(settings, { __index = function(_, name) setting(tostring(name)) end })
  core.on_require = module
  local make_gate = core.make_gate
  function core.make_gate(name)
    local gate = make_gate(name)
    local take, shared = gate.settings, gate.shared
    function gate.settings(given, types)
      local names = {}
      for key in pairs(types) do names[#names + 1] = key end
      sort(names)
      for _, key in ipairs(names) do setting(key, types[key]) end
      return take(given, types)
    end
    function gate.shared(key)
      if type(key) == "string" then dictionary(key) end
      return shared(key)
    end
    return gate
  end
  report.modules, report.dictionaries, report.settings = modules, dictionaries, read
  return function()
    for name, value in pairs(settings) do
      if not by_name[name] then read[#read + 1] = { name = name, given = value } end
    end
    sort(read, function(a, b) return a.name < b.name end)
  end
end

local function hooks_of(hooks)
  local list = {}
  for _, name in ipairs(core.hooks) do
    local hook = hooks[name]
    if hook then
      local info = getinfo(hook, "S")
      list[#list + 1] = { name = name, line = info.linedefined }
    end
  end
  return list
end

local function hint(report, given)
  local missing = {}
  for _, setting in ipairs(report.settings) do
    -- What the error names comes first.
    if setting.given == nil then
      missing[#missing + 1] = { name = setting.name, named = report.error:find(setting.name, 1, true) ~= nil }
    end
  end
  if #missing == 0 or report.error:find("unknown setting", 1, true) then return nil end
  sort(missing, function(a, b)
    if a.named ~= b.named then return a.named end
    return a.name < b.name
  end)
  local names, example = {}, nil
  for i, one in ipairs(missing) do
    names[i] = one.name
    example = example or one.name
  end
  return (given and "it may need other settings" or "it was loaded without settings, and may need some") ..
    ": it reads " .. concat(names, ", ") .. "; give them behind the file, as in: moongate --check-script " ..
    report.script .. " " .. example .. "=VALUE"
end

local function as_text(report)
  local lines = {}
  local function list(what, items, none)
    lines[#lines + 1] = ("  %-13s %s"):format(what, #items > 0 and concat(items, ", ") or none)
  end
  lines[1] = report.script .. (report.ok and ": fine" or ": does not load")
  if report.error then lines[#lines + 1] = "  " .. report.error:gsub("\n", "\n  ") end
  for _, global in ipairs(report.errors) do
    lines[#lines + 1] = ('  %s:%d: the global "%s" is %s'):format(report.script, global.line, global.name,
      global.what)
  end
  if report.hint then lines[#lines + 1] = "  " .. report.hint end
  local items = {}
  for i, hook in ipairs(report.hooks) do
    items[i] = hook.name .. " (line " .. hook.line .. ")"
  end
  if report.ok then list("hooks", items, "none, with these settings") end
  items = {}
  for i, setting in ipairs(report.settings) do
    items[i] = setting.name .. (setting.type and " (" .. setting.type .. ")" or "") ..
      (setting.given ~= nil and " = " .. tostring(setting.given) or "")
  end
  list("settings", items, "none")
  list("modules", report.modules, "none")
  list("dictionaries", report.dictionaries, "none")
  list("globals", report.globals, "none")
  return concat(lines, "\n") .. "\n"
end

-- text, name, path of the script; a table of settings; whether JSON is wanted: report, whether it is fine
return function(text, name, path, settings, as_json)
  local report = { script = name, path = path, hooks = {} }
  local given = next(settings) ~= nil
  local finish = watch(settings, report)
  local hooks, why = core.load(text, name, path, settings)
  finish()
  report.errors, report.globals = find_globals(text, name, core.known_globals())
  report.ok = hooks ~= nil
  if hooks then
    report.hooks = hooks_of(hooks)
  else
    -- One wrong global is all that the loader tells; the list says it, too.
    if #report.errors == 0 then report.error = why end
    if #report.errors == 0 then report.hint = hint(report, given) end
  end
  if as_json then return json(report) .. "\n", report.ok end
  return as_text(report), report.ok
end
