-- SPDX-License-Identifier: BSD-2-Clause
-- moongate --test: a file of tests, one test of it, and its result. What tests use, require "moongate.test",
-- is put together by the files of lua/test/, which run before this one: values.lua (as text), assert.lua,
-- time.lua, heads.lua, servers.lua, peers.lua, clients.lua, scripts.lua. All are embedded in the program;
-- src/script/test_state.c runs them in the Lua state of one test and gives them `rig`: the functions of the
-- made-up world (test_world.h), to which each file adds what the next ones need. The scripts under test run
-- in states of their own, which are the server's. Blocks of --- are moongate-lua(7).
local rig = ...

local test, misuse, show, sorted_keys = rig.test, rig.misuse, rig.show, rig.sorted_keys
local quote, yaml, caller, trim_trace, Failure = rig.quote, rig.yaml, rig.caller, rig.trim_trace, rig.Failure
local write_result = rig.result
local concat = table.concat

local tests = {}

-- ---- results ----------------------------------------------------------------------------------------------

local function log_text()
  local lines = {}
  for i, line in ipairs(rig.log()) do lines[i] = line.level .. " " .. line.text end
  return concat(lines, "\n")
end

local function failed(failure)
  local parts = { "not ok\n", yaml("message", failure.message), "severity: fail\n" }
  if failure.file then
    parts[#parts + 1] = "at:\n  file: " .. quote(failure.file) .. "\n  line: " .. failure.line .. "\n"
  end
  for _, name in ipairs { "expected", "got", "difference" } do
    if failure[name] then parts[#parts + 1] = yaml(name, failure[name]) end
  end
  if failure.trace then parts[#parts + 1] = yaml("traceback", failure.trace) end
  local log = log_text()
  if log ~= "" then parts[#parts + 1] = yaml("log", log .. "\n") end
  write_result(concat(parts))
end

-- Called by src/script/test_state.c in the place where the time was over.
function test.out_of_time(trace)
  local kept = trim_trace(trace)
  local where = kept and kept:match("^([^\n]*:%d+):") or "no line of a script"
  local file, line = where:match("^(.*):(%d+)$")
  failed { message = "the test did not end within " .. rig.time_limit .. " s; it was at " .. where,
    file = file, line = line, trace = kept }
end

-- ---- the file and its tests -------------------------------------------------------------------------------

--- test(name, function)
--- Declares a test. Each runs in a process of its own, in which the whole file is loaded anew: nothing of one
--- test is left for the next.
--- @example
---   test("denied clients are closed", function()
---     local web = test.script("firewall.lua", { deny = "192.0.2.0/24" })
---     test.truthy(web:connect("192.0.2.7").rejected)
---   end)
setmetatable(test, {
  __call = function(_, name, fn)
    if type(name) ~= "string" or name == "" or type(fn) ~= "function" then
      misuse("test takes a name and a function")
    end
    tests[#tests + 1] = { name = name:gsub("%s+", " "):gsub("%c", "?"), fn = fn }
  end,
  __index = function(_, name)
    misuse('"moongate.test" has no ' .. show(name) .. ", expected one of " .. concat(sorted_keys(test), ", "))
  end,
})

local function describe(why)
  if getmetatable(why) == Failure then return why end
  local failure = { message = tostring(why), trace = trim_trace(debug.traceback("", 2)) }
  local file, line = failure.message:match("^([^\n]-):(%d+): ")
  if file == "moongate.test" then file, line = caller() end
  failure.file, failure.line = file, line
  return failure
end

-- What tests print is a comment of the output.
local function print_comment(...)
  local parts = {}
  for i = 1, select("#", ...) do parts[i] = tostring((select(i, ...))) end
  io.stdout:write("    # ", (concat(parts, " "):gsub("\r", ""):gsub("\n", "\n    # ")), "\n")
  io.stdout:flush()
end

local function folder_of(path)
  return path:match("^(.*)/[^/]*$") or "."
end

local function load_file()
  rig.test_folder = folder_of(rig.path)
  if rig.test_folder:sub(1, 1) ~= "/" then
    rig.test_folder = rig.test_folder == "." and rig.cwd or rig.cwd .. "/" .. rig.test_folder
  end
  package.path = rig.test_folder .. "/?.lua;" .. package.path
  package.preload["moongate.test"] = function() return test end
  _G.test = test
  _G.print = print_comment
  local fn, why = loadfile(rig.path)
  if not fn then return nil, why end
  local ok, failure = xpcall(fn, describe)
  if ok then return true end
  local at = failure.file and failure.file .. ":" .. failure.line .. ": " or ""
  local text = failure.message
  if text:sub(1, #at) ~= at then text = at .. text end
  return nil, text .. (failure.trace and "\n" .. failure.trace or "")
end

local function run_test(case)
  local ok, failure = xpcall(case.fn, describe)
  if not ok and failure.skip then
    write_result("skip " .. failure.skip .. "\n")
    return
  end
  if ok then
    local left = test.errors()
    if #left > 0 then
      ok = false
      failure = { message = "a script failed, and the test did not ask for it with test.errors()",
        got = left[1] }
    end
  end
  if not ok then return failed(failure) end
  local log = rig.verbose and log_text() or ""
  write_result("ok\n" .. (log ~= "" and yaml("log", log .. "\n") or ""))
end

function test.main()
  test.main = nil
  local loaded, why = load_file()
  if not loaded then
    write_result("bad\n" .. why:gsub("[%z\1-\8\11-\31\127]", "?") .. "\n")
  elseif rig.index == 0 then
    local names = {}
    for i, case in ipairs(tests) do names[i] = case.name .. "\n" end
    write_result("ok\n" .. concat(names))
  else
    run_test(tests[rig.index])
  end
end

