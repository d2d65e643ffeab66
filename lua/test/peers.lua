-- SPDX-License-Identifier: BSD-2-Clause
-- Made-up peers of gate.tcp and gate.udp for lua/test.lua: what scripts are expected to send, and what comes
-- back. The bytes are carried by src/script/test_peers.c. Blocks of --- are moongate-lua(7).
local rig = ...

local test, misuse, show, raise, quote = rig.test, rig.misuse, rig.show, rig.raise, rig.quote
local check_keys, later = rig.check_keys, rig.later

local peers = {}  -- by address; "udp:" before it for datagrams
local open = {}   -- connections, and sockets for datagrams, by number

local step_keys = { expect = true, send = true, delay = true, close = true, fail = true }

local function check_step(step, address)
  if type(step) ~= "table" then
    misuse('the peer "' .. address .. '": a step is a table, not a ' .. type(step))
  end
  check_keys(step, step_keys, 'a step of the peer "' .. address .. '"')
  if step.expect ~= nil and type(step.expect) ~= "string" then
    misuse('the peer "' .. address .. '": expect = ' .. show(step.expect) .. ", expected a string")
  end
end

--- test.peer(address, step, ...)
--- Says what the peer at an address does (or at a name with its port, of which test.name() says the address),
--- to which scripts connect with gate.tcp.connect(); with "udp:" before the address, gate.udp.connect(). Each
--- connection goes through the steps, and then again through those that expect something. A step is a table;
--- its fields, all of them optional: expect (what the script sends next, byte by byte; of datagrams a whole
--- one; the test fails when something else comes. Without it the step is done at once), delay in seconds,
--- send (a string, or a list of pieces; a number between pieces is a pause in seconds; of datagrams each
--- piece is one), close (true, or "reset"). In the place of all steps { fail = WORD } says that the
--- connection fails with one of the words of gate.tcp.connect(), or that nothing answers ("timeout").
--- Instead of steps there may be a function that gets what came, and returns what to send, or nothing.
---
--- Where no test.peer() is, connections are refused and datagrams are lost.
--- @return an object with the fields received (all that came, as a list: of streams one string for each
--- connection), connections (how many were made) and open (how many are open now)
--- @example
---   local redis = test.peer("127.0.0.1:6379",
---     { expect = "GET colour\r\n", send = { "$3\r\n", 0.1, "red\r\n" } })
---   local statsd = test.peer("udp:127.0.0.1:8125")
---   test.peer("192.0.2.7:25", { send = "220 hello\r\n" }, { expect = "QUIT\r\n", close = true })
---   test.peer("192.0.2.8:25", { fail = "refused" })
function test.peer(address, ...)
  if type(address) ~= "string" then misuse("test.peer takes an address") end
  local steps = { ... }
  local talk = type(steps[1]) == "function" and steps[1] or nil
  if not talk then
    for i = 1, select("#", ...) do check_step(steps[i], address) end
  end
  local peer = peers[address] or { received = {}, connections = 0, open = 0 }
  peer.steps, peer.talk = talk and {} or steps, talk
  peers[address] = peer
  return setmetatable({}, { __index = peer })
end

local advance

local function send_pieces(side, pieces, from, after)
  for i = from, #pieces do
    if type(pieces[i]) == "number" then
      later(pieces[i], function() send_pieces(side, pieces, i + 1, after) end)
      return
    end
    rig.peer_push(side.number, pieces[i])
  end
  after()
end

local function do_step(side, step)
  local pieces = type(step.send) == "table" and step.send or { step.send }
  side.busy = true
  later(step.delay or 0, function()
    send_pieces(side, pieces, 1, function()
      side.busy = false
      if step.close then
        rig.peer_end(side.number, step.close == "reset")
      else
        advance(side)
      end
    end)
  end)
end

local function differs(side, expected, got)
  local at = 1
  while at <= #got and got:byte(at) == expected:byte(at) do at = at + 1 end
  local message = ('the script sends something else to the peer "%s", from byte %d on')
  raise { message = message:format(side.address, at), expected = quote(expected), got = quote(got) }
end

-- The next step: the one behind the last is the first that expects something.
local function next_step(side)
  local steps = side.peer.steps
  local step = steps[side.at]
  if step then return step end
  for i = 1, #steps do
    if steps[i].expect then
      side.at = i
      return steps[i]
    end
  end
end

function advance(side)
  while not side.busy do
    local step = next_step(side)
    if not step then return end
    if step.expect then
      local data = side.data
      if side.datagrams then
        if not data[1] then return end
        data = table.remove(data, 1)
        if data ~= step.expect then differs(side, step.expect, data) end
      else
        if #data < #step.expect then
          if step.expect:sub(1, #data) ~= data then differs(side, step.expect, data) end
          return
        end
        local got = data:sub(1, #step.expect)
        if got ~= step.expect then differs(side, step.expect, got) end
        side.data = data:sub(#step.expect + 1)
      end
    end
    side.at = side.at + 1
    do_step(side, step)
  end
end

local function arrived(side, text)
  local peer = side.peer
  if side.datagrams then
    peer.received[#peer.received + 1] = text
  else
    peer.received[side.place] = peer.received[side.place] .. text
  end
  if peer.talk then
    local answer = peer.talk(text)
    if answer then do_step(side, { send = answer }) end
  elseif side.datagrams then
    if peer.steps[1] then
      side.data[#side.data + 1] = text
      advance(side)
    end
  else
    side.data = side.data .. text
    advance(side)
  end
end

-- text: the address; behind a zero byte the name that it is of.
local function began(number, text, datagrams)
  local address, name = text:match("^(%Z*)%z?(.*)$")
  local kind = datagrams and "udp:" or ""
  local peer = peers[kind .. name] or peers[kind .. address]
  if not peer then
    if not datagrams then rig.peer_answer(number, "refused") end
    return
  end
  local fail = peer.steps[1] and peer.steps[1].fail
  if fail then
    if fail ~= "timeout" and not rig.peer_answer(number, fail) then
      misuse(('the peer "%s": fail = %s, expected a word of gate.tcp.connect()'):format(address, show(fail)))
    end
    return
  end
  peer.connections, peer.open = peer.connections + 1, peer.open + 1
  local side = { number = number, peer = peer, address = address, datagrams = datagrams, at = 1,
    data = datagrams and {} or "", place = peer.connections }
  open[number] = side
  if not datagrams then
    peer.received[side.place] = ""
    rig.peer_answer(number)
  end
  if not peer.talk then advance(side) end
end

-- Whether something happened.
function rig.peers_turn()
  local busy = false
  while true do
    local kind, number, text = rig.peer_event()
    if not kind then return busy end
    busy = true
    local side = open[number]
    if kind == "connects" or kind == "opened" then
      began(number, text, kind == "opened")
    elseif kind == "sent" then
      if side then arrived(side, text) end
    elseif kind == "closed" and side then
      side.peer.open, open[number] = side.peer.open - 1, nil
      side.busy = true
    end
  end
end
