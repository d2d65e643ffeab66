-- SPDX-License-Identifier: BSD-2-Clause
-- Made-up upstream servers for lua/test.lua: what they answer, and what they got. Blocks of --- are
-- moongate-lua(7).
local rig = ...

local test, misuse, show, sorted_keys = rig.test, rig.misuse, rig.show, rig.sorted_keys
local field_text, add_fields, parse_head, pieces_of, check_keys =
  rig.field_text, rig.add_fields, rig.parse_head, rig.pieces_of, rig.check_keys
local later = rig.later
local concat = table.concat

local upstreams = {}  -- by name
local streams = {}    -- what is under way to a server, by number

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
  if of_file then return of_file end
  local doors, why = rig.load(nil)
  if not doors then misuse(why) end
  of_file = doors
  return doors
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
--- configuration, if one is used; else it becomes one. An address, or NAME:PORT, stands for what a route hook or
--- gate.fetch names.
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

local function handle_event(kind, stream, visit, name, server)
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

rig.handle_event = handle_event
rig.is_address = is_address
rig.load_given = load_given
rig.upstreams = upstreams
rig.streams = streams
