-- SPDX-License-Identifier: BSD-2-Clause
-- Scripts under test for lua/test.lua: frontends of a configuration that is made up for them, or of a given
-- one; the test's files, and what is logged. Blocks of --- are moongate-lua(7).
local rig = ...

local test, misuse, found, sorted_keys = rig.test, rig.misuse, rig.found, rig.sorted_keys
local field_text, check_keys = rig.field_text, rig.check_keys
local is_address, load_given = rig.is_address, rig.load_given
local settle, upstreams, Client = rig.settle, rig.upstreams, rig.Client
local difference = rig.difference
local concat = table.concat

local Frontend = {}
Frontend.__index = Frontend

-- What C is told of TLS: the fields of tls/stream.h as texts.
local function text_fact(value, what)
  if type(value) ~= "string" then misuse(what .. " is a string, not a " .. type(value)) end
  return value
end
local function list_fact(value, what)
  if type(value) ~= "table" then misuse(what .. " is a list of strings, not a " .. type(value)) end
  for _, one in ipairs(value) do
    if text_fact(one, "one of " .. what):find("%s") then misuse("one of " .. what .. " has a space in it") end
  end
  return concat(value, " ")
end
local function flag_fact(value, what)
  if type(value) ~= "boolean" then misuse(what .. " is true or false, not a " .. type(value)) end
  return value and "yes" or "no"
end
local function time_fact(value, what)
  if type(value) ~= "number" then misuse(what .. " is a number of seconds, not a " .. type(value)) end
  return ("%.0f"):format(value)
end
local fact_kinds = {
  version = text_fact, cipher = text_fact, group = text_fact, server_name = text_fact, alpn = text_fact,
  resumed = flag_fact, fingerprint = text_fact, offered_alpn = list_fact, offered_versions = list_fact,
}
local certificate_kinds = {
  subject = text_fact, issuer = text_fact, serial = text_fact, fingerprint = text_fact, names = list_fact,
  not_before = time_fact, not_after = time_fact,
}

local function put_facts(to, facts, kinds, prefix, what)
  check_keys(facts, kinds, what)
  for name, value in pairs(facts) do to[prefix .. name] = kinds[name](value, name) end
end

local function tls_facts(spec)
  local facts = { version = "TLSv1.3", cipher = "TLS_AES_128_GCM_SHA256", resumed = "no" }
  if spec == true then return facts end
  if type(spec) ~= "table" then misuse("tls is true or a table, not a " .. type(spec)) end
  local own = {}
  for name, value in pairs(spec) do own[name] = value end
  if own.client ~= nil then
    if type(own.client) ~= "table" then misuse("client of tls is a table, not a " .. type(own.client)) end
    facts.client_fingerprint = ("0"):rep(64)
    put_facts(facts, own.client, certificate_kinds, "client_", "a client's certificate")
    own.client = nil
  end
  put_facts(facts, own, fact_kinds, "", "tls")
  return facts
end

--- frontend:connect(from)
--- frontend:connect { from = ADDRESS, to = ADDRESS, tls = FACTS }
--- Connects a client, from 192.0.2.1:40000 to 127.0.0.1:80 unless it is said otherwise; addresses are written
--- 192.0.2.1, 192.0.2.1:4000, 2001:db8::1 or [2001:db8::1]:4000. Its connect hook has run, or waits. With tls
--- the connection has TLS, tls_hello and tls_done hooks run, too, and requests are https. tls is true or a table of
--- what conn.tls is to say, as it says it: version (TLSv1.3), cipher (TLS_AES_128_GCM_SHA256), group, server_name,
--- alpn, resumed (false), fingerprint, offered_alpn, offered_versions, and client, a table with subject, issuer,
--- serial, fingerprint (64 zeros), names, not_before and not_after, of which tls_hello sees what it would of a real one.
--- @return a client
--- @example
---   local web = test.script(test.file("a.lua", "return {}"))
---   local client = web:connect { tls = { server_name = "www.example.org", client = { subject = "CN=me" } } }
function Frontend.connect(t, spec)
  if type(spec) == "string" then spec = { from = spec } end
  spec = spec or {}
  check_keys(spec, { from = true, to = true, tls = true }, "a connection")
  local tls = spec.tls and tls_facts(spec.tls)
  local ok, number = pcall(rig.connect, t.door, spec.from or "192.0.2.1", spec.to or "127.0.0.1", tls)
  if not ok then misuse(number) end
  local client = setmetatable({ number = number }, Client)
  settle()
  return client
end

--- frontend:request(request)
--- frontend:get(target, headers)
--- The same on a new connection; the request's fields from, to and tls are its.
function Frontend.request(t, spec)
  local from, to, tls
  if type(spec) == "table" then from, to, tls = spec.from, spec.to, spec.tls end
  return t:connect { from = from, to = to, tls = tls }:request(spec)
end

function Frontend.get(t, target, headers)
  return t:request { target = target, headers = headers }
end

-- Looks again when it is asked, because a hook may have waited.
local Found = {}
function Found.__index(t, name)
  local answer, more = rig.resolved(rawget(t, "wish"))
  if name == "waits" then return answer == nil and more == nil end
  if name == "why" then return not answer and more or nil end
  if name == "ttl" then return answer and more end
  return answer and answer[name]
end

--- frontend:resolve(name, family)
--- Asks for a name as the frontend's scripts would, resolve hooks first; family is 4 or 6, else both. What test.name()
--- says is what DNS answers.
--- @return an object with the addresses from [1] on and their ttl in seconds, or why: a text as of gate.resolve; waits is
--- true as long as a hook waits
--- @example
---   test.name("db.example", { "192.0.2.1" })
---   local web = test.script(test.file("a.lua", [[
---     return { resolve = function(name) if name == "db.example" then return "192.0.2.9" end end }]]))
---   test.equal(web:resolve("db.example")[1], "192.0.2.9")
function Frontend.resolve(t, name, family)
  if type(name) ~= "string" then misuse("frontend:resolve takes a name") end
  if family ~= nil and family ~= 4 and family ~= 6 then misuse("frontend:resolve takes family 4 or 6") end
  local found = setmetatable({ wish = rig.resolve(t.door, name, family or 0) }, Found)
  settle()
  return found
end

local function conf_word(text)
  text = field_text(text, "a setting")
  return '"' .. text:gsub('["\\$]', "\\%0"):gsub("\t", "\\t") .. '"'
end

local option_keys = { routes = true, directives = true, shared = true, upstreams = true }
local loads = 0

-- The configuration's text for a chain of scripts.
local function configuration(scripts, options)
  options = options or {}
  check_keys(options, option_keys, "the options of a script")
  local lines, routes = {}, options.routes or { ["/"] = "origin" }
  local beside, folder = rig.test_folder .. "/../lua", ""
  local opened = io.open(beside)
  if opened then
    opened:close()
    folder = " " .. conf_word(beside)
  end
  lines[1] = "scripts " .. conf_word(rig.folder) .. " " .. conf_word(rig.test_folder) .. folder .. ";"
  local named = {}
  for _, name in pairs(routes) do named[name] = true end
  for name in pairs(upstreams) do
    if not is_address(name) then named[name] = true end
  end
  for _, name in ipairs(sorted_keys(named)) do
    lines[#lines + 1] = "upstream " .. name .. " { server 127.0.0.1:9; }"
  end
  lines[#lines + 1] = "frontend test {\nlisten 127.0.0.1:80;"
  for i, script in ipairs(scripts) do
    if type(script) == "string" then script = { script } end
    if type(script) ~= "table" or type(script[1]) ~= "string" then
      misuse("script " .. i .. ": expected a file's name, or { NAME, SETTINGS }")
    end
    local words = { "script " .. conf_word(script[1]) }
    for _, key in ipairs(sorted_keys(script[2] or {})) do
      local value = script[2][key]
      if value == true then value = "on" elseif value == false then value = "off" end
      key = field_text(key, "a setting")
      words[#words + 1] = conf_word(key .. "=" .. field_text(value, "setting " .. key))
    end
    lines[#lines + 1] = concat(words, " ") .. ";"
  end
  for _, prefix in ipairs(sorted_keys(routes)) do
    lines[#lines + 1] = "route " .. conf_word(prefix) .. " " .. routes[prefix] .. ";"
  end
  lines[#lines + 1] = (options.directives or "") .. "\n}"
  return concat(lines, "\n") .. "\n"
end

local function load_door(text, name)
  loads = loads + 1
  local doors, why = rig.load(text)
  if not doors then
    -- The made-up configuration is nothing that the test's author has seen.
    why = why:gsub(" %(the script of [^)]*%)$", "")
    local line = text and why:match("^" .. rig.folder:gsub("%W", "%%%0") .. "/test%.conf:%d+:%d+: (.-)\n")
    misuse(line or why)
  end
  return doors[name] or misuse('no frontend "' .. name .. '" in the configuration, expected one of ' ..
    concat(sorted_keys(doors), ", "))
end

--- test.script(name, settings, options)
--- Loads a script as a frontend would, with settings (numbers and booleans become the strings that a
--- configuration has). It is looked for among the files of the test, in the folder of the test file, in a
--- folder lua beside that one, and among the ready-made ones; require looks there, too. Shared dictionaries
--- are there as soon as they are asked for, and are this test's alone. options, all of them optional: routes
--- (upstreams by prefix; { ["/"] = "origin" }), and directives, text for the frontend's block in the
--- configuration, such as "on_script_error pass; max_body 1k;".
--- @return a frontend
--- @error when the script does not load
--- @example
---   local web = test.script("firewall.lua", { deny = "192.0.2.0/24" })
function test.script(name, settings, options)
  if type(name) ~= "string" then misuse("test.script takes a file's name, got a " .. type(name)) end
  return test.scripts({ { name, settings } }, options)
end

--- test.scripts(list, options)
--- The same for several scripts in order; each is a name, or a list of name and settings.
--- @example
---   local web = test.scripts { { "firewall.lua", { methods = "GET" } }, "redirect_https.lua" }
function test.scripts(list, options)
  if type(list) ~= "table" then misuse("test.scripts takes a list of scripts") end
  local door = load_door(configuration(list, options), "test")
  return setmetatable({ door = door }, Frontend)
end

--- test.frontend(name)
--- A frontend of the configuration that moongate --test was given with -c, with its scripts, routes and
--- settings.
--- @return a frontend
function test.frontend(name)
  local doors = load_given()
  local door = doors[name] or misuse('no frontend "' .. tostring(name) ..
    '" in the configuration, expected one of ' .. concat(sorted_keys(doors), ", "))
  return setmetatable({ door = door }, Frontend)
end

--- test.file(name, text)
--- Writes a file for this test alone: a script, a list of networks. It is gone after the test.
--- @return its path, for settings
--- @example
---   local web = test.script("firewall.lua", { denied = test.file("denied.txt", "192.0.2.0/24\n") })
function test.file(name, text)
  if type(name) ~= "string" or name == "" or name:sub(1, 1) == "/" or
    ("/" .. name .. "/"):find("/../", 1, true) then
    misuse("test.file takes a name without .. and a text")
  end
  if type(text) ~= "string" then misuse("test.file takes a text, got a " .. type(text)) end
  local path, why = rig.file(name, text)
  return path or misuse(why)
end

-- ---- logs and errors --------------------------------------------------------------------------------------

--- test.log()
--- What was written to the error log so far, scripts' lines and moongate's own, from level info on
--- (test.log_level "debug" for more).
--- @return a list of tables with the fields level and text
function test.log() return rig.log() end

function test.log_level(level) rig.log_level(level) end

--- test.logged(pattern)
--- @return the text of the first line of the log that matches (as in test.matches), or nil
function test.logged(pattern)
  for _, line in ipairs(rig.log()) do
    if found(line.text, pattern) then return line.text end
  end
end

local errors_seen = 0

local function errors_since(first)
  local texts, lines = {}, rig.log()
  for i = first, #lines do
    local line = lines[i]
    if line.level == "error" and line.text:find('^script "') then texts[#texts + 1] = line.text end
  end
  return texts, #lines
end

--- test.errors()
--- What went wrong in scripts since it was asked last: the texts as they are logged, with script, hook, line
--- and traceback. A test fails if a script has failed and it did not ask. As in the log, no more than ten in
--- a second are told.
--- @return a list of texts
--- @example
---   test.matches(test.errors()[1], "bad.lua:3: attempt to index")
function test.errors()
  local texts
  texts, errors_seen = errors_since(errors_seen + 1)
  return texts
end

--- test.metric(name, labels)
--- What a metric of scripts (gate.counter and its like) has come to; labels are values by name.
--- @return a number; of a histogram two, count and sum; nil when nothing was counted under these labels
--- @example
---   test.equal(test.metric("seen_total", { status = "200" }), nil)
function test.metric(name, labels)
  for _, series in ipairs(rig.metrics()) do
    if series.name == name and not difference(series.labels, labels or {}, "") then
      if series.kind == "histogram" then return series.count, series.sum end
      return series.value
    end
  end
end
