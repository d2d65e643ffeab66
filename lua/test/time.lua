-- SPDX-License-Identifier: BSD-2-Clause
-- The clock of a test for lua/test.lua, and what happens by itself: what servers do later, what clients have
-- still to send. Blocks of --- are moongate-lua(7).
local rig = ...

local test, misuse = rig.test, rig.misuse
local floor = math.floor

local pending = {}  -- { at = milliseconds, order, run = function }: what servers do later
local order = 0
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

-- Until nothing more happens by itself.
local function settle()
  local turns = 0
  repeat
    local busy = rig.turn()
    while true do
      local kind, stream, visit, upstream, server = rig.event()
      if not kind then break end
      busy = true
      rig.handle_event(kind, stream, visit, upstream, server)
    end
    if rig.peers_turn() then busy = true end
    while pending[1] and pending[1].at <= clock() do
      busy = true
      table.remove(pending, 1).run()
    end
    for number in pairs(sending) do
      if rig.send_more(number) then busy = true end
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

rig.sending = sending
rig.later = later
rig.settle = settle
