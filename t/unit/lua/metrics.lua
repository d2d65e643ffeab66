-- SPDX-License-Identifier: BSD-2-Clause
-- Metrics: what is refused, and that labels are told apart. What they add up to, t/system/test_lua_libraries.py asks
-- moongatectl.
local gate = require "moongate"

local function refuses(message, call, ...)
  local ok, why = pcall(call, ...)
  if ok or not tostring(why):find(message, 1, true) then error("expected an error with " .. message .. ", got " .. tostring(why), 2) end
end

local plain = gate.counter("plain_total", "text")
local labelled = gate.counter("labelled_total", "text", { "a", "b" })
local level = gate.gauge("level", nil, { "tank" })
local spread = gate.histogram("spread_seconds")
local deep = gate.counter("deep_total", "", { "a", "b", "c", "d" })
gate.counter("plain_total", "another text")

plain:inc()
plain:inc(2.5)
plain:inc(0)
labelled:inc(1, "x", 5)
labelled:inc(1, "x", "5")
labelled:inc(1, true, "\0\n\"\\")
labelled:inc(1, ("long"):rep(1000), "")
labelled:inc(1, 0 / 0, 1 / 0)
level:set(-5, "left")
level:inc(-1, "left")
level:inc(nil, "left")
spread:observe(0.2)
spread:observe(-1e9)
spread:observe(1e9)
for i = 1, 3 do deep:inc(i, 1, 2, 3, 4) end
for i = 1, 3000 do labelled:inc(1, i, i + 0.5) end
for i = 1, 3000 do labelled:inc(1, 1 + i * 1e-17, "alike") end

refuses("inc: expected a number from 0, got a number", plain.inc, plain, -1)
refuses("inc: expected a number from 0", plain.inc, plain, 0 / 0)
refuses("inc: expected a number from 0", plain.inc, plain, 1 / 0)
refuses("inc: expected a number from 0, got a string", plain.inc, plain, "1")
refuses("set: expected a number, got nil", level.set, level)
refuses("set: expected a number", level.set, level, 1 / 0, "x")
refuses("observe: expected a number", spread.observe, spread, -1 / 0)
refuses("plain_total: expected 0 values of labels", plain.inc, plain, 1, "x")
refuses("labelled_total: expected 2 values of labels (a, b)", labelled.inc, labelled, 1)
refuses("labelled_total: expected 2 values of labels (a, b)", labelled.inc, labelled, 1, "x")
refuses("labelled_total: expected 2 values of labels (a, b)", labelled.inc, labelled, 1, nil, "x")
refuses("labelled_total: expected 2 values of labels (a, b)", labelled.inc, labelled, 1, "x", "y", "z")
refuses("labelled_total: expected 2 values of labels (a, b)", labelled.inc, labelled, 1, "x", 5, "z")
refuses("level: expected 1 values of labels (tank)", level.set, level, 1, "left", "right")
refuses("deep_total: expected 4 values", deep.inc, deep, 1, 1, 2, 3)
refuses("labelled_total: a label's value: expected a string, got a table", labelled.inc, labelled, 1, {}, "x")
refuses("that is no metric", plain.inc, { 99 }, 1)
refuses("that is no metric", plain.inc, {}, 1)

refuses("gate.counter: expected a name, got nil", gate.counter)
refuses("gate.gauge: expected a help text as a string, got a table", gate.gauge, "g", {})
refuses("gate.gauge: expected a table of labels' names, got a string", gate.gauge, "g", "", "a")
refuses("gate.gauge: expected labels' names as strings, got a number", gate.gauge, "g", "", { 5 })
refuses("gate.histogram: expected a table of buckets' bounds, got a number", gate.histogram, "h", "", {}, 5)
refuses("gate.histogram: expected bounds as numbers, got a string", gate.histogram, "h", "", {}, { "1" })
refuses("the bounds of \"h\" do not rise", gate.histogram, "h", "", {}, { 2, 1 })
refuses("0 buckets", gate.histogram, "h", "", {}, {})
refuses("is no name of a metric", gate.counter, "a b")
refuses("are moongate's own", gate.counter, "moongate_requests_total")
refuses("is no name of a label", gate.counter, "c", "", { "__a" })
refuses("at most 4 labels", gate.counter, "c", "", { "a", "b", "c", "d", "e" })
refuses("has a NUL", gate.counter, "c", "a\0b")
refuses("changes only with a restart", gate.gauge, "plain_total")
refuses("changes only with a restart", gate.counter, "labelled_total", "", { "b", "a" })

return {
  request = function()
    plain:inc()
    labelled:inc(1, "new", "one")
    refuses("metrics are made while a script loads, not in a hook", gate.counter, "late_total")
  end,
}
