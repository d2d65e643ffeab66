-- SPDX-License-Identifier: BSD-2-Clause
-- gate.shared: the dictionaries that all workers share (base/dict.h), as scripts see them.
local core = ...

local gate, C, ffi = core.parts.gate, core.parts.C, core.parts.ffi
local fail, wrong, raise, text_of = core.parts.fail, core.parts.wrong, core.parts.raise, core.parts.text_of
local type, tostring, pairs, setmetatable, floor = type, tostring, pairs, setmetatable, math.floor
local ffi_string = ffi.string
local OK, NONE = ffi.C.MG_OK, ffi.C.MG_NONE
local SET, ADD, REPLACE, KEYS_MAX = ffi.C.MG_SET, ffi.C.MG_ADD, ffi.C.MG_REPLACE, ffi.C.MG_KEYS_MAX
local MG_STRING, MG_NUMBER, MG_BOOLEAN, MG_NIL =
  ffi.C.MG_STRING, ffi.C.MG_NUMBER, ffi.C.MG_BOOLEAN, ffi.C.MG_NIL
local c_dict_get, c_dict_set, c_dict_incr, c_dict_cas = C.dict_get, C.dict_set, C.dict_incr, C.dict_cas
local c_dict_take, c_dict_delete, c_dict_expire = C.dict_take, C.dict_delete, C.dict_expire
local c_dict_push, c_dict_pop, c_dict_length = C.dict_push, C.dict_pop, C.dict_length
local out, out_value, out_number = ffi.new("struct mg_text"), ffi.new("struct mg_value"), ffi.new("double[1]")
local in_value, in_expected = ffi.new("struct mg_value"), ffi.new("struct mg_value")

-- A dictionary's table: which pointer, and what stands before each of its keys (false: nothing).
local dict_pointers, dict_objects = {}, {}
local dict_methods = {}
local Dict = { __index = dict_methods, __metatable = "dictionary" }

--- gate.shared(name, options)
--- The dictionary that the configuration defines with `shared NAME SIZE;`. All workers see the same; it
--- survives reloads and the loss of a worker at any moment: a value is then the old one or the new one. When
--- it is full, what was not used for longest goes. Keys are strings of up to 250 bytes; numbers are printed.
---
--- With options { generation = true } the keys are those of this configuration alone: after a reload it
--- begins without any, while requests of the generation before still see theirs. What an old one leaves
--- behind goes with its time, or when room is needed. Keys then have up to 230 bytes.
--- @error when there is none of that name
--- @example
---   local limits = gate.shared "limits"
---   local fresh  = gate.shared("limits", { generation = true })
function gate.shared(name, options)
  if type(name) ~= "string" then wrong("gate.shared", "the name of a dictionary", name) end
  local prefix = false
  if options ~= nil then
    if type(options) ~= "table" then wrong("gate.shared", "a table of options", options) end
    for option, value in pairs(options) do
      if option ~= "generation" then
        raise('gate.shared: unknown option "' .. tostring(option) .. '", expected generation')
      end
      if value then prefix = "\0" .. core.generation .. "\0" end
    end
  end
  local object = name .. (prefix or "")
  local dict = dict_objects[object]
  if not dict then
    local pointer = C.dict_find(name)
    if pointer == nil then
      raise('no dictionary "' .. name .. '": expected "shared ' .. name .. ' SIZE;" in the configuration')
    end
    dict_pointers[#dict_pointers + 1] = pointer
    dict = setmetatable({ #dict_pointers, prefix }, Dict)
    dict_objects[object] = dict
  end
  return dict
end

local function key_of(t, key)
  if type(key) ~= "string" then key = text_of(key, "a dictionary's key") end
  local prefix = t[2]
  if prefix then
    if key == "" then raise("a key has at least one byte") end
    return prefix .. key
  end
  return key
end

local function ttl_of(ttl)
  if ttl == nil then return 0 end
  if type(ttl) ~= "number" or not (ttl >= 0) then wrong("a dictionary's ttl", "seconds", ttl) end
  return ttl
end

-- Writes a value where C reads it; the caller keeps it alive during the call.
local function put_value(to, value, what)
  local kind = type(value)
  if kind == "string" then
    to.type, to.text.at, to.text.len = MG_STRING, value, #value
  elseif kind == "number" then
    to.type, to.number = MG_NUMBER, value
  elseif kind == "boolean" then
    to.type, to.number = MG_BOOLEAN, value and 1 or 0
  else
    wrong(what, "a string, number or boolean", value)
  end
end

local function take_value()
  if out_value.type == MG_STRING then
    local text = ffi_string(out_value.text.at, out_value.text.len)
    return text
  end
  if out_value.type == MG_NUMBER then return out_value.number end
  return out_value.number ~= 0
end

--- dict:get(key)
--- @return the value, a string, number or boolean; nil if there is none
--- @example
---   local limits = gate.shared "limits"
---   local seen = limits:get("nobody")                    -- nil
function dict_methods.get(t, key)
  key = key_of(t, key)
  local result = c_dict_get(dict_pointers[t[1]], key, #key, out_value)
  if result == NONE then return nil end
  if result ~= OK then fail(result) end
  return take_value()
end

local function dict_set(t, key, value, ttl, when)
  key = key_of(t, key)
  ttl = ttl_of(ttl)
  local dict, kind = dict_pointers[t[1]], type(value)
  local result
  if kind == "string" then
    result = c_dict_set(dict, key, #key, MG_STRING, 0, value, #value, ttl, when)
  elseif kind == "number" then
    result = c_dict_set(dict, key, #key, MG_NUMBER, value, nil, 0, ttl, when)
  elseif kind == "boolean" then
    result = c_dict_set(dict, key, #key, MG_BOOLEAN, value and 1 or 0, nil, 0, ttl, when)
  else
    wrong("a dictionary's value", "a string, number or boolean", value)
  end
  if result == OK then return true end
  if result == NONE then return false end
  fail(result)
end

--- dict:set(key, value, ttl)
--- Sets a string (up to 65536 bytes), number or boolean; it goes after ttl seconds, if that is given and not
--- 0. nil deletes.
--- @example
---   limits:set("motd", "closed today", 3600)
function dict_methods.set(t, key, value, ttl)
  if value == nil then
    t:delete(key)
    return true
  end
  return dict_set(t, key, value, ttl, SET)
end

--- dict:add(key, value, ttl)
--- Sets the value only if there is none.
--- @return whether it was set
--- @example
---   local first = limits:add("job-1", true, 60)          -- true
function dict_methods.add(t, key, value, ttl)
  return dict_set(t, key, value, ttl, ADD)
end

--- dict:replace(key, value, ttl)
--- Sets the value only if there is one.
--- @return whether it was set
--- @example
---   local done = limits:replace("job-2", false)          -- false
function dict_methods.replace(t, key, value, ttl)
  return dict_set(t, key, value, ttl, REPLACE)
end

--- dict:cas(key, old, new, ttl)
--- Compare and set: sets the value to `new` only if it is `old`, with no other worker in between. With old
--- nil only if there is none; with new nil it is deleted.
--- @return whether it was so
--- @example
---   limits:set("leader", "worker 1")
---   local mine = limits:cas("leader", "worker 1", "worker 2")   -- true
---   local more = limits:cas("leader", "worker 1", "worker 3")   -- false
function dict_methods.cas(t, key, old, new, ttl)
  key = key_of(t, key)
  ttl = ttl_of(ttl)
  if old == nil then in_expected.type = MG_NIL else put_value(in_expected, old, "cas") end
  if new == nil then in_value.type = MG_NIL else put_value(in_value, new, "cas") end
  local result = c_dict_cas(dict_pointers[t[1]], key, #key, in_expected, in_value, ttl)
  if result == OK then return true end
  if result == NONE then return false end
  fail(result)
end

--- dict:incr(key, by, initial, ttl)
--- Adds to a number, 1 if `by` is left out. An absent one counts as `initial` (0 if left out) and goes after
--- ttl seconds.
--- @return the new number
--- @error when the key has another value
--- @example
---   local visits = limits:incr("visits", 1, 0, 86400)    -- 1
function dict_methods.incr(t, key, by, initial, ttl)
  key = key_of(t, key)
  by = by or 1
  initial = initial or 0
  if type(by) ~= "number" then wrong("incr", "numbers", by) end
  if type(initial) ~= "number" then wrong("incr", "numbers", initial) end
  local result = c_dict_incr(dict_pointers[t[1]], key, #key, by, initial, ttl_of(ttl), out_number)
  if result ~= OK then fail(result) end
  return out_number[0]
end

--- dict:take(key, rate, burst, cost)
--- A token bucket: it holds at most `burst` tokens (as many as `rate` if left out, at least 1), gets `rate` a
--- second, and gives `cost` of them (1 if left out) if it has them.
--- @return true, or false and the seconds after which there will be enough
--- @example
---   local ok, wait = limits:take(req.conn.remote_ip, 10, 50)
function dict_methods.take(t, key, rate, burst, cost)
  key = key_of(t, key)
  if type(rate) ~= "number" then wrong("take", "a rate (tokens a second)", rate) end
  if not burst then burst = rate < 1 and 1 or rate end
  cost = cost or 1
  if type(burst) ~= "number" then wrong("take", "numbers", burst) end
  if type(cost) ~= "number" then wrong("take", "numbers", cost) end
  local result = c_dict_take(dict_pointers[t[1]], key, #key, rate, burst, cost, out_number)
  if result == OK then return true end
  if result == NONE then return false, out_number[0] end
  fail(result)
end

--- dict:delete(key)
--- @return whether there was something: a value, a bucket or a list
--- @example
---   local gone = limits:delete("nobody")                 -- false
function dict_methods.delete(t, key)
  key = key_of(t, key)
  local result = c_dict_delete(dict_pointers[t[1]], key, #key)
  if result == OK then return true end
  if result == NONE then return false end
  fail(result)
end

--- dict:expire(key, ttl)
--- Lets a value or list go after ttl seconds from now; never, if that is 0 or left out.
--- @return whether there is one
--- @error for a token bucket
--- @example
---   limits:set("session", "diana")
---   local there = limits:expire("session", 1800)         -- true
function dict_methods.expire(t, key, ttl)
  key = key_of(t, key)
  local result = c_dict_expire(dict_pointers[t[1]], key, #key, ttl_of(ttl))
  if result == OK then return true end
  if result == NONE then return false end
  fail(result)
end

--- dict:ttl(key)
--- @return the seconds after which a value or list will go, 0 if it stays until room is needed; nil if there
--- is none. It does not count as a use
--- @error for a token bucket
--- @example
---   limits:set("forever", 1)
---   local left = limits:ttl("forever")                   -- 0
function dict_methods.ttl(t, key)
  key = key_of(t, key)
  local result = C.dict_ttl(dict_pointers[t[1]], key, #key, out_number)
  if result == OK then return out_number[0] end
  if result == NONE then return nil end
  fail(result)
end

--- dict:keys(limit)
--- Up to `limit` keys (1024 if left out, at most 65536), roughly the last used first; of token buckets and
--- lists too. For looking into it now and then: it takes longer the more there are.
--- @return a table of keys; second, whether there are more
--- @example
---   local keys, more = limits:keys(10)
function dict_methods.keys(t, limit)
  limit = limit or 1024
  if type(limit) ~= "number" or limit ~= floor(limit) or limit < 0 or limit > KEYS_MAX then
    wrong("keys", "a limit of 0 to " .. KEYS_MAX, limit)
  end
  local prefix = t[2] or ""
  local result = C.dict_keys(dict_pointers[t[1]], prefix, #prefix, limit, out, out_number)
  if result ~= OK then fail(result) end
  local keys, at, last = {}, out.at, out.at + out.len
  while at < last do
    local length = ffi.cast("const unsigned char *", at)[0]
    keys[#keys + 1] = ffi_string(at + 1 + #prefix, length - #prefix)
    at = at + 1 + length
  end
  return keys, out_number[0] ~= 0
end

local function push(t, key, value, right, what)
  key = key_of(t, key)
  put_value(in_value, value, what)
  local result = c_dict_push(dict_pointers[t[1]], key, #key, right, in_value, out_number)
  if result == OK then return out_number[0] end
  if result == NONE then return nil, "the list is full" end
  fail(result)
end

local function pop(t, key, right)
  key = key_of(t, key)
  local result = c_dict_pop(dict_pointers[t[1]], key, #key, right, out_value)
  if result == OK then return take_value() end
  if result == NONE then return nil end
  fail(result)
end

--- dict:rpush(key, value)
--- dict:lpush(key, value)
--- Adds a string, number or boolean to a list, at its right or left end; an absent one is made. A list has up
--- to 65536 bytes (less in a small dictionary), of which each value takes 9 and its own; each call takes
--- longer the more that is.
--- @return how many values the list has now; or nil and a message when the list is full
--- @error when the key has something that is no list
--- @example
---   local jobs = gate.shared "jobs"
---   local count = jobs:rpush("mail", "to diana")         -- 1
function dict_methods.rpush(t, key, value)
  local count, message = push(t, key, value, 1, "rpush")
  return count, message
end
function dict_methods.lpush(t, key, value)
  local count, message = push(t, key, value, 0, "lpush")
  return count, message
end

--- dict:lpop(key)
--- dict:rpop(key)
--- Takes the value at the left or right end off a list. With the last one the list is gone.
--- @return the value, nil if there is no list
--- @error as rpush
--- @example
---   local jobs = gate.shared "jobs"
---   jobs:rpush("calls", 1)
---   jobs:rpush("calls", 2)
---   local job = jobs:lpop("calls")                       -- 1
function dict_methods.lpop(t, key)
  local value = pop(t, key, 0)
  return value
end
function dict_methods.rpop(t, key)
  local value = pop(t, key, 1)
  return value
end

--- dict:llen(key)
--- @return how many values a list has, 0 if there is none
--- @error as rpush
--- @example
---   local count = limits:llen("no list")                 -- 0
function dict_methods.llen(t, key)
  key = key_of(t, key)
  local result = c_dict_length(dict_pointers[t[1]], key, #key, out_number)
  if result ~= OK then fail(result) end
  return out_number[0]
end

--- dict:flush()
--- Removes everything, of all generations too.
--- @example
---   limits:flush()
function dict_methods.flush(t)
  local result = C.dict_flush(dict_pointers[t[1]])
  if result ~= OK then fail(result) end
end

--- dict:stats()
--- @return a table of numbers about the whole dictionary: entries, bytes and capacity now; hits, misses,
--- expired, evictions and recoveries since it was made
--- @example
---   local free = limits:stats().capacity - limits:stats().bytes
function dict_methods.stats(t)
  local stats = ffi.new("struct mg_dict_stats")
  local result = C.dict_stats(dict_pointers[t[1]], stats)
  if result ~= OK then fail(result) end
  return { entries = stats.entries, bytes = stats.bytes, capacity = stats.capacity, hits = stats.hits,
    misses = stats.misses, expired = stats.expired, evictions = stats.evictions,
    recoveries = stats.recoveries }
end
