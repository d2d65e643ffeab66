-- SPDX-License-Identifier: BSD-2-Clause
-- gate.counter, gate.gauge and gate.histogram: numbers about the scripts' work that moongatectl show metrics
-- prints. The memory is base/metrics.h's; what a hook counts goes there with one store, without a call.
local core = ...

local gate, C, ffi = core.parts.gate, core.parts.C, core.parts.ffi
local fail, wrong, raise, text_of = core.parts.fail, core.parts.wrong, core.parts.raise, core.parts.text_of
local type, tostring, ipairs, setmetatable, concat = type, tostring, ipairs, setmetatable, table.concat
local OK = ffi.C.MG_OK
local c_series = C.metric_series
local out_words = ffi.new("double *[1]")

local LABELS, VALUE_MAX, CACHE_MAX, HUGE = 4, ffi.C.MG_METRIC_VALUE_MAX, 2000, math.huge
local COUNTER, GAUGE, HISTOGRAM = 0, 1, 2
local kind_names = { [0] = "gate.counter", "gate.gauge", "gate.histogram" }

-- What the number in a metric's table stands for: id, name, labels (names), count (of labels), words (without
-- labels), tree (the words by the first label's value, by the second's, ...), cached, bounds.
local families = {}
local counter_methods, gauge_methods, histogram_methods = {}, {}, {}
local classes = {
  [COUNTER] = { __index = counter_methods, __metatable = "counter" },
  [GAUGE] = { __index = gauge_methods, __metatable = "gauge" },
  [HISTOGRAM] = { __index = histogram_methods, __metatable = "histogram" },
}

-- ---- finding the words of a series ------------------------------------------------------------------------

local function expects(family)
  raise(family.name .. ": expected " .. family.count .. " values of labels"
    .. (family.count > 0 and " (" .. concat(family.labels, ", ") .. ")" or ""))
end

local function value_of(family, value)
  if value == nil then expects(family) end
  if type(value) == "boolean" then return tostring(value) end
  value = text_of(value, family.name .. ": a label's value")
  if #value > VALUE_MAX then value = value:sub(1, VALUE_MAX) end
  return value:find("\0", 1, true) and value:gsub("%z", "?") or value
end

-- The first time that values are met: asks C, and remembers. The bound of C is one of the tree too, but for
-- values that are printed alike.
local function find_words(family, a, b, c, d)
  local given, parts = { a, b, c, d }, {}
  for i = 1, family.count do parts[i] = value_of(family, given[i]) .. "\0" end
  for i = family.count + 1, LABELS do
    if given[i] ~= nil then expects(family) end
  end
  local values = concat(parts)
  local result = c_series(family.id, values, #values, out_words)
  local words = out_words[0]
  if result ~= OK or family.cached >= CACHE_MAX then return words end
  local node = family.tree
  for i = 1, family.count do
    local value = given[i]
    if value ~= value then return words end
    if i == family.count then
      node[value] = words
      family.cached = family.cached + 1
    else
      node[value] = node[value] or {}
      node = node[value]
    end
  end
  return words
end

local function words_of(t, a, b, c, d)
  local family = families[t[1]]
  if not family then raise("that is no metric") end
  local count, node = family.count, nil
  if count == 0 then
    if a ~= nil then expects(family) end
    return family.words, family
  end
  if a ~= nil then node = family.tree[a] end
  if count == 1 then
    if b ~= nil then expects(family) end
  elseif node then
    node = b ~= nil and node[b]
    if count == 2 then
      if c ~= nil then expects(family) end
    elseif node then
      node = c ~= nil and node[c]
      if count == 3 then
        if d ~= nil then expects(family) end
      elseif node then
        node = d ~= nil and node[d]
      end
    end
  end
  return node or find_words(family, a, b, c, d), family
end

-- ---- counting ---------------------------------------------------------------------------------------------

--- counter:inc(by, ...)
--- Adds to a counter, 1 if `by` is nil, for the values of its labels that follow in the order of their names:
--- strings, numbers or booleans. Of one combination it costs a few nanoseconds, and no lock.
---
--- A metric has up to 1000 combinations in each worker; what comes after is counted together, in the one
--- whose labels all are "other", and in the counter metric_series_lost. Of a value the first 128 bytes count.
--- @error for a number below 0, and where labels are missing or too many
--- @example
---   local denied = gate.counter("denied_total", "requests refused", { "reason", "host" })
---   denied:inc(1, "address", req.host)
function counter_methods.inc(t, by, a, b, c, d)
  if by == nil then by = 1 end
  if type(by) ~= "number" or not (by >= 0 and by < HUGE) then wrong("inc", "a number from 0", by) end
  local words = words_of(t, a, b, c, d)
  words[0] = words[0] + by
end

--- gauge:set(value, ...)
--- gauge:inc(by, ...)
--- Sets a gauge, or adds to it (1 if `by` is nil; less than 0 takes away), for the values of its labels. What
--- is shown is the sum of all workers: each sets its own part. That of a worker that dies is 0; a reload
--- leaves it.
--- @error as counter:inc
--- @example
---   local waiting = gate.gauge("jobs_waiting", "jobs that this worker has not done")
---   waiting:inc()
---   waiting:set(0)
function gauge_methods.set(t, value, a, b, c, d)
  if type(value) ~= "number" or not (value > -HUGE and value < HUGE) then wrong("set", "a number", value) end
  local words = words_of(t, a, b, c, d)
  words[0] = value
end

function gauge_methods.inc(t, by, a, b, c, d)
  if by == nil then by = 1 end
  if type(by) ~= "number" or not (by > -HUGE and by < HUGE) then wrong("inc", "a number", by) end
  local words = words_of(t, a, b, c, d)
  words[0] = words[0] + by
end

--- histogram:observe(value, ...)
--- Counts a value in a histogram: in the first bucket whose bound is not below it.
--- @error as counter:inc
--- @example
---   local sizes = gate.histogram("query_bytes", "lengths of queries", {}, { 10, 100, 1000 })
---   sizes:observe(#(req.query or ""))
function histogram_methods.observe(t, value, a, b, c, d)
  if type(value) ~= "number" or not (value > -HUGE and value < HUGE) then
    wrong("observe", "a number", value)
  end
  local words, family = words_of(t, a, b, c, d)
  local bounds, count = family.bounds, family.bound_count
  local i = 0
  while i < count and value > bounds[i] do i = i + 1 end
  if i < count then words[2 + i] = words[2 + i] + 1 end
  words[1] = words[1] + value
  words[0] = words[0] + 1
end

-- ---- defining ---------------------------------------------------------------------------------------------

local function define(kind, name, help, labels, buckets)
  local what = kind_names[kind]
  if not core.loading then raise(what .. ": metrics are made while a script loads, not in a hook") end
  if type(name) ~= "string" then wrong(what, "a name", name) end
  if help ~= nil and type(help) ~= "string" then wrong(what, "a help text as a string", help) end
  if labels ~= nil and type(labels) ~= "table" then wrong(what, "a table of labels' names", labels) end
  local parts, label_names = { name, help or "" }, {}
  for i, label in ipairs(labels or {}) do
    if type(label) ~= "string" then wrong(what, "labels' names as strings", label) end
    parts[#parts + 1] = label
    label_names[i] = label
  end
  for _, part in ipairs(parts) do
    if part:find("\0", 1, true) then raise(what .. ": a name or text has a NUL") end
  end
  local bounds
  if kind == HISTOGRAM then
    if type(buckets) ~= "table" then wrong(what, "a table of buckets' bounds", buckets) end
    bounds = ffi.new("double[?]", #buckets)
    for i, bound in ipairs(buckets) do
      if type(bound) ~= "number" then wrong(what, "bounds as numbers", bound) end
      bounds[i - 1] = bound
    end
  end
  local names = concat(parts, "\0") .. "\0"
  local id = C.metric_define(kind, names, #names, bounds, bounds and #buckets or 0)
  if id < 0 then fail(id) end
  local family = { id = id, name = name, labels = label_names, count = #label_names, tree = {}, cached = 0,
    bounds = bounds, bound_count = bounds and #buckets or 0 }
  if family.count == 0 then
    c_series(id, "", 0, out_words)
    family.words = out_words[0]
  end
  families[#families + 1] = family
  return setmetatable({ #families }, classes[kind])
end

--- gate.counter(name, help, labels)
--- A number that only grows, shown by `moongatectl show metrics` as the sum of all workers; reloads and the
--- death of a worker leave it as it is. name is as Prometheus wants it (letters, digits, _; by custom a
--- counter's ends in _total), help a text or nil, labels a table of up to four names or nil. Only while a
--- script loads; several scripts may make the same one. Until a restart it keeps its kind and labels.
--- @error for names that are not allowed or begin with moongate_, for a metric of that name that is
--- different, and when the memory for metrics (256 KiB a worker) is used up
--- @example
---   local seen = gate.counter("seen_total", "requests by method and status", { "method", "status" })
---   seen:inc(1, req.method, res.status)
function gate.counter(name, help, labels) return (define(COUNTER, name, help, labels)) end

--- gate.gauge(name, help, labels)
--- A number that goes up and down; otherwise as gate.counter().
--- @example
---   local level = gate.gauge("level", "how full the tank is", { "tank" })
---   level:set(0.75, "left")
function gate.gauge(name, help, labels) return (define(GAUGE, name, help, labels)) end

--- gate.histogram(name, help, labels, buckets)
--- How values are spread: their count, their sum, and how many were at most each bound of buckets, a rising
--- table of up to 32 numbers; from 0.005 to 10 (for seconds) if it is left out. Otherwise as gate.counter().
--- @example
---   local spent = gate.histogram("spent_seconds", "time of lookups", { "kind" }, { 0.01, 0.1, 1 })
---   spent:observe(0.02, "address")
function gate.histogram(name, help, labels, buckets)
  return (define(HISTOGRAM, name, help, labels,
    buckets == nil and { 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10 } or buckets))
end
