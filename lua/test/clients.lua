-- SPDX-License-Identifier: BSD-2-Clause
-- Made-up clients for lua/test.lua: connections, requests, and what became of them. Blocks of --- are
-- moongate-lua(7).
local rig = ...

local misuse, show, sorted_keys = rig.misuse, rig.show, rig.sorted_keys
local field_text, add_fields, parse_head, pieces_of, check_keys =
  rig.field_text, rig.add_fields, rig.parse_head, rig.pieces_of, rig.check_keys
local settle, sending, streams = rig.settle, rig.sending, rig.streams
local concat = table.concat

local Visit, Client = {}, {}

local visit_methods = {}

-- Sends what a visit has still to send, as far as it is wanted; whether something was.
local function send_more(number)
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
--- exchange.paused
--- Whether the exchange is over; whether its answer broke off; whether a hook waits (sleeps, say), in which
--- case test.advance() lets it go on; whether moongate takes no more of the request's body for the time
--- being.
function visit_get.ended(_, now) return now.state ~= "runs" end
function visit_get.aborted(_, now) return now.state == "aborted" end
function visit_get.paused(_, now) return now.paused or false end
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
  raw = true, from = true, to = true, tls = true }

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
    misuse("no request can be sent: the connection " .. (state == "waits" and "waits for its connect hook, or one of TLS"
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
--- Whether a hook (connect, tls_hello, tls_done) rejected the connection; whether one has not decided yet.
--- client.certificate
--- client.tunnel
--- What a tls_hello hook chose: the name of conn:certificate(), the address of conn:tunnel(); nil if it did not.
function Client.__index(t, name)
  if client_methods[name] then return client_methods[name] end
  local state, certificate, tunnel = rig.client(rawget(t, "number"))
  if name == "certificate" then return certificate end
  if name == "tunnel" then return tunnel end
  if name == "rejected" then return state == "rejected" end
  if name == "waits" then return state == "waits" end
  if name == "closed" then return state == "closed" end
  misuse("a client has no field " .. show(name) .. ", expected rejected, waits, closed, certificate or tunnel")
end

rig.send_more = send_more
rig.Client = Client
