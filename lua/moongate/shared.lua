-- SPDX-License-Identifier: BSD-2-Clause
-- gate.shared: the dictionaries that all workers share (base/dict.h), as scripts see them.
local core = ...

local gate, C, ffi = core.parts.gate, core.parts.C, core.parts.ffi
local fail, wrong, raise, text_of = core.parts.fail, core.parts.wrong, core.parts.raise, core.parts.text_of
local type, setmetatable, ffi_string = type, setmetatable, ffi.string
local OK, NONE = ffi.C.MG_OK, ffi.C.MG_NONE
local c_dict_get, c_dict_set, c_dict_incr = C.dict_get, C.dict_set, C.dict_incr
local c_dict_take, c_dict_delete = C.dict_take, C.dict_delete
local out_value, out_number = ffi.new("struct mg_value"), ffi.new("double[1]")

local MG_STRING, MG_NUMBER, MG_BOOLEAN = ffi.C.MG_STRING, ffi.C.MG_NUMBER, ffi.C.MG_BOOLEAN
local dict_pointers, dict_objects = {}, {}
local dict_methods = {}
local Dict = { __index = dict_methods, __metatable = "dictionary" }

--- gate.shared(name)
--- The dictionary that the configuration defines with `shared NAME SIZE;`. All workers see the same; it
--- survives reloads and the loss of a worker. When it is full, what was not used for longest goes. Keys are
--- strings of up to 250 bytes.
--- @error when there is none of that name
--- @example
---   local limits = gate.shared "limits"
function gate.shared(name)
  if type(name) ~= "string" then wrong("gate.shared", "the name of a dictionary", name) end
  local dict = dict_objects[name]
  if not dict then
    local pointer = C.dict_find(name)
    if pointer == nil then
      raise('no dictionary "' .. name .. '": expected "shared ' .. name .. ' SIZE;" in the configuration')
    end
    dict_pointers[#dict_pointers + 1] = pointer
    dict = setmetatable({ #dict_pointers }, Dict)
    dict_objects[name] = dict
  end
  return dict
end

local function key_of(key)
  if type(key) == "string" then return key end
  return text_of(key, "a dictionary's key")
end

local function ttl_of(ttl)
  if ttl == nil then return 0 end
  if type(ttl) ~= "number" or not (ttl >= 0) then wrong("a dictionary's ttl", "seconds", ttl) end
  return ttl
end

--- dict:get(key)
--- @return the value, a string, number or boolean; nil if there is none
function dict_methods.get(t, key)
  key = key_of(key)
  local result = c_dict_get(dict_pointers[t[1]], key, #key, out_value)
  if result == NONE then return nil end
  if result ~= OK then fail(result) end
  if out_value.type == MG_STRING then
    local text = ffi_string(out_value.text.at, out_value.text.len)
    return text
  end
  if out_value.type == MG_NUMBER then return out_value.number end
  return out_value.number ~= 0
end

local function dict_set(t, key, value, ttl, only_new)
  key = key_of(key)
  ttl = ttl_of(ttl)
  local dict, kind = dict_pointers[t[1]], type(value)
  local result
  if kind == "string" then
    result = c_dict_set(dict, key, #key, MG_STRING, 0, value, #value, ttl, only_new)
  elseif kind == "number" then
    result = c_dict_set(dict, key, #key, MG_NUMBER, value, nil, 0, ttl, only_new)
  elseif kind == "boolean" then
    result = c_dict_set(dict, key, #key, MG_BOOLEAN, value and 1 or 0, nil, 0, ttl, only_new)
  else
    wrong("a dictionary's value", "a string, number or boolean", value)
  end
  if result == OK then return true end
  if result == NONE then return false end
  fail(result)
end

--- dict:set(key, value, ttl)
--- Sets a string, number or boolean; it goes after ttl seconds, if that is given and not 0. nil deletes.
function dict_methods.set(t, key, value, ttl)
  if value == nil then
    t:delete(key)
    return true
  end
  return dict_set(t, key, value, ttl, 0)
end

--- dict:add(key, value, ttl)
--- Sets the value only if there is none.
--- @return whether it was set
function dict_methods.add(t, key, value, ttl)
  return dict_set(t, key, value, ttl, 1)
end

--- dict:incr(key, by, initial, ttl)
--- Adds to a number, 1 if `by` is left out. An absent one counts as `initial` (0 if left out) and goes after
--- ttl seconds.
--- @return the new number
--- @error when the key has another value
function dict_methods.incr(t, key, by, initial, ttl)
  key = key_of(key)
  by = by or 1
  initial = initial or 0
  if type(by) ~= "number" or type(initial) ~= "number" then wrong("incr", "numbers", by) end
  local result = c_dict_incr(dict_pointers[t[1]], key, #key, by, initial, ttl_of(ttl), out_number)
  if result ~= OK then fail(result) end
  return out_number[0]
end

--- dict:take(key, rate, burst, cost)
--- A token bucket: it holds at most `burst` tokens (as many as `rate` if left out, at least 1), gets `rate` a
--- second, and gives
--- `cost` of them (1 if left out) if it has them.
--- @return true, or false and the seconds after which there will be enough
--- @example
---   local ok, wait = limits:take(req.conn.remote_ip, 10, 50)
function dict_methods.take(t, key, rate, burst, cost)
  key = key_of(key)
  if type(rate) ~= "number" then wrong("take", "a rate (tokens a second)", rate) end
  if not burst then burst = rate < 1 and 1 or rate end
  cost = cost or 1
  if type(burst) ~= "number" or type(cost) ~= "number" then wrong("take", "numbers", burst) end
  local result = c_dict_take(dict_pointers[t[1]], key, #key, rate, burst, cost, out_number)
  if result == OK then return true end
  if result == NONE then return false, out_number[0] end
  fail(result)
end

--- dict:delete(key)
--- @return whether there was something
function dict_methods.delete(t, key)
  key = key_of(key)
  local result = c_dict_delete(dict_pointers[t[1]], key, #key)
  if result == OK then return true end
  if result == NONE then return false end
  fail(result)
end

--- dict:stats()
--- @return a table of numbers: entries, bytes and capacity now; hits, misses, expired, evictions and
--- recoveries since it was made
function dict_methods.stats(t)
  local stats = ffi.new("struct mg_dict_stats")
  local result = C.dict_stats(dict_pointers[t[1]], stats)
  if result ~= OK then fail(result) end
  return { entries = stats.entries, bytes = stats.bytes, capacity = stats.capacity, hits = stats.hits,
    misses = stats.misses, expired = stats.expired, evictions = stats.evictions,
    recoveries = stats.recoveries }
end
