-- SPDX-License-Identifier: BSD-2-Clause
-- What a test file of scripts gets as "moongate.test" (moongate --test): tests, made-up clients and servers,
-- a clock that stands still, and assertions with readable differences. Embedded in the program;
-- src/script/test_state.c runs it in the Lua state of one test and gives it `rig`, the functions of the
-- made-up world below. The scripts under test run in states of their own, which are the server's. Blocks of
-- --- are moongate-lua(7).
local rig = ...

local test = {}
local tests = {}
local Failure = {}  -- the metatable of what a failed assertion raises
local concat, floor, max = table.concat, math.floor, math.max
local write_result = rig.result

-- ---- values as text ---------------------------------------------------------------------------------------

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

-- ---- results ----------------------------------------------------------------------------------------------

local function yaml(name, value)
  if type(value) == "string" and value:find("\n", 1, true) and not value:find("[%z\1-\8\11-\31\127]") then
    return name .. ": |\n  " .. value:gsub("\n+$", ""):gsub("\n", "\n  ") .. "\n"
  end
  if type(value) == "number" then return name .. ": " .. value .. "\n" end
  return name .. ": " .. quote(tostring(value)) .. "\n"
end

-- The caller's line: the first that is not of this file.
local function caller()
  local level = 2
  while true do
    local info = debug.getinfo(level, "Sl")
    if not info then return rig.path, 0 end
    if info.currentline >= 0 and info.source ~= "=moongate.test" then
      return info.source:gsub("^@", ""), info.currentline
    end
    level = level + 1
  end
end

-- Without the lines of this file and of Lua's own functions that called them.
local function trim_trace(text)
  local kept = {}
  for line in (text or ""):gmatch("[^\n]+") do
    local at = line:match("^%s+(.*)$")
    if at and not at:find("^moongate%.test:") and not at:find("^moongate:") and not at:find("^sandbox:") and
      not at:find("^%[C%]:") then
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

-- ---- time and events --------------------------------------------------------------------------------------

local pending = {}  -- { at = milliseconds, order, run = function }: what servers do later
local order = 0
local upstreams = {}
local streams = {}
local sending = {}  -- visits that have pieces left to send, by number

local function clock()
  local _, ms = rig.now()
  return ms
end

local function later(seconds, run)
  order = order + 1
  pending[#pending + 1] = { at = clock() + floor(seconds * 1000 + 0.999), order = order, run = run }
  table.sort(pending, function(a, b) return a.at < b.at or (a.at == b.at and a.order < b.order) end)
end

local handle_event, send_more

-- Until nothing more happens by itself.
local function settle()
  local turns = 0
  repeat
    local busy = rig.turn()
    while true do
      local kind, stream, visit, upstream, server = rig.event()
      if not kind then break end
      busy = true
      handle_event(kind, stream, visit, upstream, server)
    end
    while pending[1] and pending[1].at <= clock() do
      busy = true
      table.remove(pending, 1).run()
    end
    for number in pairs(sending) do
      if send_more(number) then busy = true end
    end
    turns = turns + 1
    if turns > 100000 then misuse("clients and servers go on for ever") end
  until not busy
end

--- test.advance(seconds)
--- Lets time pass: hooks that sleep go on, entries of dictionaries expire, servers that are slow answer,
--- time-outs happen. Nothing else moves the clock, which begins at 2026-01-01 00:00:00 UTC.
function test.advance(seconds)
  if type(seconds) ~= "number" or seconds < 0 then misuse("test.advance takes seconds") end
  local stop = clock() + floor(seconds * 1000 + 0.5)
  settle()
  while clock() < stop do
    local target = pending[1] and pending[1].at < stop and pending[1].at or stop
    rig.advance(target - clock())
    settle()
  end
end

--- test.now(seconds)
--- The time that scripts see, in seconds since 1970; it is set if a number is given. Timers do not run by it.
--- @return the time
function test.now(seconds)
  if seconds then rig.set_now(seconds) end
  local wall = rig.now()
  return wall
end

-- ---- heads ------------------------------------------------------------------------------------------------

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

-- ---- servers ----------------------------------------------------------------------------------------------

local Upstream = {}
Upstream.__index = Upstream

local answer_keys = { status = true, reason = true, headers = true, body = true, fail = true, delay = true,
  early = true, close = true, raw = true }
local failures = { connect = true, unreachable = true, timeout = true, close = true, reset = true }

local function check_answer(answer, name)
  if type(answer) == "function" then return answer end
  if type(answer) == "number" then answer = { status = answer } end
  if type(answer) ~= "table" then
    misuse('upstream "' .. name .. '": an answer is a table, a status or a function, not a ' .. type(answer))
  end
  check_keys(answer, answer_keys, 'the answer of upstream "' .. name .. '"')
  if answer.fail and not failures[answer.fail] then
    misuse('upstream "' .. name .. '": fail = ' .. show(answer.fail) .. ", expected one of " ..
      concat(sorted_keys(failures), ", "))
  end
  if answer.status and (type(answer.status) ~= "number" or answer.status < 100 or answer.status > 999) then
    misuse('upstream "' .. name .. '": status = ' .. show(answer.status) .. ", expected 100 to 999")
  end
  pieces_of(answer.body, true)
  return answer
end

local of_file  -- the frontends of the configuration that was given, once they are loaded

local function load_given()
  if of_file then return end
  local doors, why = rig.load(nil)
  if not doors then misuse(why) end
  of_file = doors
end

-- What a route hook may name beside the upstreams of the configuration.
local function is_address(name) return name:find(":", 1, true) ~= nil end

-- A configuration with more upstreams, so that scripts find them.
local function define(name)
  if is_address(name) then return end
  if rig.conf then load_given() end
  if rig.has_upstream(name) then return end
  local loaded, why = rig.load(("upstream %s { server 127.0.0.1:9; }\n" ..
    "frontend test { listen 127.0.0.1:9; route / %s; }"):format(name, name))
  if not loaded then misuse(why) end
end

--- test.upstream(name, answer, ...)
--- Says what an upstream answers: the first request gets the first answer, and so on; the last one stands for
--- all that follow. An answer is a status, a table, or a function that gets the request and returns one of
--- these. Its fields, all of them optional: status (200), reason, headers, body (a string, or a list of
--- pieces; a number between pieces is a pause in seconds), delay in seconds, early = true (answers before it
--- has the whole request), close = true (the connection ends behind the pieces, whatever was announced), raw
--- (the whole head as it goes over the wire), or fail: "connect" (refuses the connection), "unreachable"
--- (nothing answers until connect_timeout), "timeout" (takes the request and never answers), "close" or
--- "reset" (takes it and goes).
---
--- An upstream of which nothing is said answers 200 with an empty body. The name must be an upstream of the
--- configuration, if one is used; else it becomes one. An address stands for what a route hook names.
--- @return an object whose field requests is a list of what it was asked
--- @example
---   local app = test.upstream("app", { status = 503 }, { body = "fine\n" })
function test.upstream(name, ...)
  if type(name) ~= "string" or not name:find("^[%w_.:/%[%]-]+$") then misuse("test.upstream takes a name") end
  local upstream = upstreams[name] or setmetatable({ name = name, requests = {} }, Upstream)
  upstream.answers = { ... }
  upstream.turn = 0
  for i = 1, select("#", ...) do upstream.answers[i] = check_answer(upstream.answers[i], name) end
  upstreams[name] = upstream
  define(name)
  return upstream
end

local function upstream_of(name)
  local upstream = upstreams[name]
  if not upstream then
    upstream = setmetatable({ name = name, requests = {}, answers = {}, turn = 0 }, Upstream)
    upstreams[name] = upstream
  end
  return upstream
end

-- What a server received; looks again when it is asked, because a body may still be coming.
local Received = {}
function Received.__index(t, name)
  local stream = rig.stream(rawget(t, "stream"))
  if name == "body" then return stream.body end
  if name == "complete" then return stream.received end
  local first, fields = parse_head(stream.head)
  if not first then return nil end
  if name == "headers" then return fields end
  if name == "method" then return first:match("^%S+") end
  if name == "target" then return first:match("^%S+ (%S+)") end
  if name == "head" then return stream.head end
end

local function response_head(answer, pieces)
  if answer.raw then return answer.raw end
  local status, has, lines = answer.status or 200, {}, {}
  lines[1] = ("HTTP/1.1 %d %s"):format(status, field_text(answer.reason or "", "the reason"))
  add_fields(lines, answer.headers, has)
  local bodiless = status < 200 or status == 204 or status == 304
  if not bodiless and not has["content-length"] and not has["transfer-encoding"] then
    lines[#lines + 1] = type(answer.body) == "table" and "transfer-encoding: chunked"
      or "content-length: " .. #(pieces[1] or "")
  end
  return concat(lines, "\r\n") .. "\r\n\r\n"
end

local function push_pieces(record)
  local stream, pieces = record.stream, record.pieces
  record.blocked = false
  while pieces[1] do
    local piece = pieces[1]
    if type(piece) == "number" then
      table.remove(pieces, 1)
      later(piece, function() push_pieces(record) end)
      return
    end
    if #piece > 0 and not rig.push(stream, piece) then
      record.blocked = true
      return
    end
    table.remove(pieces, 1)
  end
  if record.answer.close then
    rig.broken(stream, false)
  else
    rig.complete(stream)
  end
end

local function give_answer(record)
  if record.given then return end
  record.given = true
  local answer = record.answer
  if answer.fail == "timeout" then return end
  later(answer.delay or 0, function()
    if answer.fail then
      rig.broken(record.stream, answer.fail == "reset")
      return
    end
    record.pieces = pieces_of(answer.body, true)
    if rig.answer(record.stream, response_head(answer, record.pieces)) then push_pieces(record) end
  end)
end

function handle_event(kind, stream, visit, name, server)
  local record = streams[stream]
  if kind == "dial" then
    local upstream = upstream_of(name)
    upstream.turn = upstream.turn + 1
    local answers = upstream.answers
    local answer = answers[upstream.turn] or answers[#answers] or {}
    local request = setmetatable({ stream = stream, upstream = name, server = server, visit = visit },
      Received)
    record = { stream = stream, answer = answer, request = request, upstream = upstream }
    streams[stream] = record
    -- A function sees what was received; whether the connection can be made is said before.
    local fail = type(answer) == "table" and answer.fail
    if fail == "connect" then
      rig.refuse(stream)
    elseif fail ~= "unreachable" then
      upstream.requests[#upstream.requests + 1] = request
      rig.accept(stream)
    end
  elseif kind == "head" then
    if type(record.answer) == "table" and record.answer.early then give_answer(record) end
  elseif kind == "received" then
    if type(record.answer) == "function" then
      record.answer = check_answer(record.answer(record.request) or {}, record.upstream.name)
    end
    give_answer(record)
  elseif kind == "resume" then
    if record.blocked then push_pieces(record) end
  end
end

-- ---- clients ----------------------------------------------------------------------------------------------

local Visit, Client, Frontend = {}, {}, {}
Frontend.__index = Frontend

local visit_methods = {}

-- Sends what a visit has still to send, as far as it is wanted; whether something was.
function send_more(number)
  local visit = sending[number]
  local pieces = visit.pieces
  local sent = false
  while pieces[1] do
    local last = #pieces == 1 and not visit.open
    if not rig.send(number, pieces[1], last) then
      if rig.visit(number).state ~= "runs" then sending[number] = nil end
      return sent
    end
    table.remove(pieces, 1)
    sent = true
  end
  sending[number] = nil
  return sent
end

--- exchange:send(piece)
--- Sends a piece of the body of a request that was begun with open = true.
function visit_methods.send(t, piece)
  if not rawget(t, "open") then misuse("the request's body has ended: begin it with open = true") end
  local pieces = rawget(t, "pieces")
  pieces[#pieces + 1] = pieces_of(piece)[1]
  sending[rawget(t, "number")] = t
  settle()
end

--- exchange:finish()
--- Ends that body.
function visit_methods.finish(t)
  if not rawget(t, "open") then return end
  rawset(t, "open", false)
  local pieces = rawget(t, "pieces")
  pieces[#pieces + 1] = ""
  sending[rawget(t, "number")] = t
  settle()
end

--- exchange:leave()
--- The client goes away before it has its answer.
function visit_methods.leave(t)
  sending[rawget(t, "number")] = nil
  rig.leave(rawget(t, "number"))
  settle()
end

local visit_get = {}

--- exchange.status
--- exchange.reason
--- exchange.headers
--- exchange.body
--- The answer as the client got it so far; status and headers are nil before it has begun. Fields are asked
--- for in any case; repeated ones are joined by commas.
function visit_get.status(_, now) return tonumber(now.head:match("^HTTP/%S+ (%d+)")) end
function visit_get.reason(_, now) return now.head:match("^HTTP/%S+ %d+ ([^\r]*)") end
function visit_get.headers(_, now) return (select(2, parse_head(now.head))) end
function visit_get.body(_, now) return now.body end

--- exchange.ended
--- exchange.aborted
--- exchange.waits
--- Whether the exchange is over; whether its answer broke off; whether a hook waits (sleeps, say), in which
--- case
--- test.advance lets it go on.
function visit_get.ended(_, now) return now.state ~= "runs" end
function visit_get.aborted(_, now) return now.state == "aborted" end
function visit_get.waits(_, now) return now.waits or false end

--- exchange.upstream
--- exchange.attempts
--- The name of the upstream that was chosen last, nil if the request went nowhere; how many servers were
--- tried.
function visit_get.upstream(_, now) return now.upstream end
function visit_get.attempts(_, now) return now.attempts end

--- exchange.forwarded
--- What was sent to the upstream last, or nil: a table with method, target, headers, body, upstream and
--- complete.
--- @example
---   test.equal(answer.forwarded.headers["x-request-id"], "17")
function visit_get.forwarded(t)
  local number, last = rawget(t, "number"), nil
  for _, record in pairs(streams) do
    if record.request.visit == number and record.request.method and
      (not last or record.stream > last.stream) then last = record end
  end
  return last and last.request
end

--- exchange.interim
--- The 1xx answers that the client got before, as they went over the wire.
--- exchange.termination
--- Why it ended, as the access log's $termination says it.
function visit_get.interim(_, now) return now.interim end
function visit_get.termination(_, now) return now.reason end
function visit_get.step(_, now) return now.step end
function visit_get.id(_, now) return now.id end
function visit_get.tunnel(_, now) return now.state == "tunnel" end

function Visit.__index(t, name)
  if visit_methods[name] then return visit_methods[name] end
  local get = visit_get[name]
  if not get then
    misuse(("an exchange has no field %s, expected one of %s"):format(show(name),
      concat(sorted_keys(visit_get), ", ")))
  end
  return get(t, rig.visit(rawget(t, "number")))
end

local request_keys = { method = true, target = true, headers = true, body = true, version = true, open = true,
  raw = true, from = true, to = true }

local function request_head(spec, pieces)
  if spec.raw then return spec.raw end
  local has, lines = {}, {}
  lines[1] = ("%s %s HTTP/%s"):format(field_text(spec.method or "GET", "the method"),
    field_text(spec.target or "/", "the target"), spec.version or "1.1")
  add_fields(lines, spec.headers, has)
  if not has.host then table.insert(lines, 2, "host: www.example.org") end
  if (spec.body or spec.open) and not has["content-length"] and not has["transfer-encoding"] then
    lines[#lines + 1] = (type(spec.body) == "table" or spec.open) and "transfer-encoding: chunked"
      or "content-length: " .. #(pieces[1] or "")
  end
  return concat(lines, "\r\n") .. "\r\n\r\n"
end

local client_methods = {}

--- client:request(request)
--- Sends a request. request is a string such as "POST /form", or a table with the fields method ("GET"),
--- target ("/"), headers (by name, a list of values for a repeated field, or lines "Name: value"; Host is
--- www.example.org unless it is given or false), body (a string, or a list of pieces, which goes in chunks),
--- open = true (more of the body follows: exchange:send) and raw (the whole head as it goes over the wire).
--- What can happen without time passing has happened when it returns.
--- @return an exchange
--- @example
---   local answer = client:request { method = "POST", target = "/form", body = { "a=1", "&b=2" } }
function client_methods.request(t, spec)
  if type(spec) == "string" then
    local method, target = spec:match("^(%S+) (%S+)$")
    if not method then misuse('bad request "' .. spec .. '": expected "METHOD TARGET"') end
    spec = { method = method, target = target }
  end
  if type(spec) ~= "table" then misuse("a request is a string or a table, not a " .. type(spec)) end
  check_keys(spec, request_keys, "a request")
  local state = rig.client(rawget(t, "number"))
  if state ~= "admitted" then
    misuse("no request can be sent: the connection " .. (state == "waits" and "waits for its connect hook"
      or "was " .. state))
  end
  local pieces = pieces_of(spec.body)
  local head = request_head(spec, pieces)
  local number = rig.request(rawget(t, "number"), head)
  local visit = setmetatable({ number = number, pieces = pieces, open = spec.open or false }, Visit)
  if spec.body and #pieces == 0 and not spec.open then pieces[1] = "" end
  if #pieces > 0 then sending[number] = visit end
  settle()
  return visit
end

--- client:get(target, headers)
--- The same as client:request { target = target, headers = headers }.
function client_methods.get(t, target, headers)
  return client_methods.request(t, { target = target, headers = headers })
end

--- client:close()
--- The client goes away.
function client_methods.close(t)
  rig.close(rawget(t, "number"))
  settle()
end

--- client.rejected
--- client.waits
--- Whether a connect hook rejected the connection; whether one has not decided yet.
function Client.__index(t, name)
  if client_methods[name] then return client_methods[name] end
  local state = rig.client(rawget(t, "number"))
  if name == "rejected" then return state == "rejected" end
  if name == "waits" then return state == "waits" end
  if name == "closed" then return state == "closed" end
  misuse("a client has no field " .. show(name) .. ", expected rejected, waits or closed")
end

-- ---- frontends --------------------------------------------------------------------------------------------

--- frontend:connect(from)
--- frontend:connect { from = ADDRESS, to = ADDRESS }
--- Connects a client, from 192.0.2.1:40000 to 127.0.0.1:80 unless it is said otherwise; addresses are written
--- 192.0.2.1, 192.0.2.1:4000, 2001:db8::1 or [2001:db8::1]:4000. Its connect hook has run, or waits.
--- @return a client
function Frontend.connect(t, spec)
  if type(spec) == "string" then spec = { from = spec } end
  spec = spec or {}
  check_keys(spec, { from = true, to = true }, "a connection")
  local ok, number = pcall(rig.connect, t.door, spec.from or "192.0.2.1", spec.to or "127.0.0.1")
  if not ok then misuse(number) end
  local client = setmetatable({ number = number }, Client)
  settle()
  return client
end

--- frontend:request(request)
--- frontend:get(target, headers)
--- The same on a new connection; the request's fields from and to are its addresses.
function Frontend.request(t, spec)
  local from, to
  if type(spec) == "table" then from, to = spec.from, spec.to end
  return t:connect { from = from, to = to }:request(spec)
end

function Frontend.get(t, target, headers)
  return t:request { target = target, headers = headers }
end

local function conf_word(text)
  text = field_text(text, "a setting")
  return '"' .. text:gsub('["\\$]', "\\%0"):gsub("\t", "\\t") .. '"'
end

local function folder_of(path)
  return path:match("^(.*)/[^/]*$") or "."
end

local option_keys = { routes = true, directives = true, shared = true, upstreams = true }
local loads = 0

-- The configuration's text for a chain of scripts.
local function configuration(scripts, options)
  options = options or {}
  check_keys(options, option_keys, "the options of a script")
  local lines, routes = {}, options.routes or { ["/"] = "origin" }
  lines[1] = "scripts " .. conf_word(rig.folder) .. " " .. conf_word(rig.test_folder) .. ";"
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
--- configuration has). It is looked for among the files of the test, in the folder of the test file, and
--- among the ready-made ones; require looks there, too. Shared dictionaries are there as soon as they are
--- asked for, and are this test's alone. options, all of them optional: routes (upstreams by prefix; { ["/"]
--- = "origin" }), and directives, text for the frontend's block in the configuration, such as
--- "on_script_error pass; max_body 1k;".
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
  load_given()
  local door = of_file[name] or misuse('no frontend "' .. tostring(name) ..
    '" in the configuration, expected one of ' .. concat(sorted_keys(of_file), ", "))
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
--- and traceback. A test fails if a script has failed and it did not ask.
--- @return a list of texts
--- @example
---   test.matches(test.errors()[1], "bad.lua:3: attempt to index")
function test.errors()
  local texts
  texts, errors_seen = errors_since(errors_seen + 1)
  return texts
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
    tests[#tests + 1] = { name = name:gsub("%s+", " "), fn = fn }
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
    write_result("bad\n" .. why .. "\n")
  elseif rig.index == 0 then
    local names = {}
    for i, case in ipairs(tests) do names[i] = case.name .. "\n" end
    write_result("ok\n" .. concat(names))
  else
    run_test(tests[rig.index])
  end
end

return test
