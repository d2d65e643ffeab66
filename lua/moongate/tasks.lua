-- SPDX-License-Identifier: BSD-2-Clause
-- Timers, tasks and semaphores for scripts: who waits for whom, in Lua; that somebody waits and is woken is
-- src/script/job.c's and coroutine.c's.
local core = ...

local gate, C, ffi = core.parts.gate, core.parts.C, core.parts.ffi
local fail, wrong, raise = core.parts.fail, core.parts.wrong, core.raise
local OK, WAIT = ffi.C.MG_OK, core.wait
local yield, pcall, error, next, select, unpack = coroutine.yield, pcall, error, next, select, unpack
local type, pairs, getmetatable, setmetatable = type, pairs, getmetatable, setmetatable
local c_job_timer, c_job_spawn, c_job_cancel = C.job_timer, C.job_spawn, C.job_cancel
local c_task_ticket, c_task_park, c_task_unpark = C.task_ticket, C.task_park, C.task_unpark
local out = ffi.new("double[1]")

-- Functions of jobs by number, and the tasks among them; C takes what is over out by job_over().
local jobs, tasks = {}, {}
core.jobs = jobs

local FOREVER = 1e6  -- seconds

-- ---- waiting ---------------------------------------------------------------------------------------------

local function my_ticket()
  local result = c_task_ticket(out)
  if result ~= OK then fail(result) end
  return out[0]
end

-- Waits until somebody calls wake() with the waiter, at most so many seconds. Whether it was woken.
local function park(waiter, timeout, what)
  if timeout ~= nil and (type(timeout) ~= "number" or not (timeout >= 0)) then
    wrong(what, "a time-out in seconds", timeout)
  end
  waiter.ticket = my_ticket()
  local result = c_task_park(timeout or FOREVER)
  if result ~= OK then fail(result) end
  yield(WAIT)
  waiter.over = true
  return waiter.woken
end

core.park = park

-- False when it waits no more: its time-out came, or what it belonged to is gone.
local function wake(waiter)
  if waiter.over or waiter.woken or c_task_unpark(waiter.ticket) ~= OK then return false end
  waiter.woken = true
  return true
end

-- ---- timers ----------------------------------------------------------------------------------------------

local timer_methods = {}
local Timer = { __index = timer_methods, __metatable = "timer" }

local function bound(fn, ...)
  local count = select("#", ...)
  if count == 0 then return fn end
  local arguments = { ... }
  return function() return fn(unpack(arguments, 1, count)) end
end

local function timer(what, every, seconds, fn, ...)
  if type(seconds) ~= "number" then wrong(what, "seconds", seconds) end
  if type(fn) ~= "function" then wrong(what, "a function", fn) end
  local result = c_job_timer(seconds, every, out)
  if result ~= OK then fail(result) end
  local id = out[0]
  jobs[id] = bound(fn, ...)
  return setmetatable({ id }, Timer)
end

--- gate.after(seconds, fn, ...)
--- Calls the function once, with the arguments that follow it, when so many seconds have passed, in this
--- worker and on nobody's behalf: what it returns is not looked at, an error is logged. It may wait. A
--- timer that is made
--- while a script loads begins to count when the configuration is in use; one that has not fired when
--- another configuration
--- takes its place never does.
--- @return a timer
--- @error when 10000 timers and tasks exist already
--- @example
---   gate.after(5, function(path) gate.log.info("five seconds ago:", path) end, req.path)
function gate.after(seconds, fn, ...) return timer("gate.after", 0, seconds, fn, ...) end

--- gate.every(seconds, fn, ...)
--- Calls the function again and again, as gate.after does, the first time after so many seconds. It is
--- never called
--- while its last call has not returned; calls that were missed are not made up for. Each worker has its
--- own: let one of
--- them do what is to be done once.
--- @return a timer
--- @error when 10000 timers and tasks exist already
--- @example
---   if gate.worker == 0 then gate.every(60, function() gate.log.info("a minute has passed") end) end
function gate.every(seconds, fn, ...) return timer("gate.every", 1, seconds, fn, ...) end

--- timer:cancel()
--- It does not fire any more. A call that is under way comes to its end.
--- @return whether there was something to cancel
function timer_methods.cancel(t)
  local result = c_job_cancel(t[1])
  return result == OK
end

-- ---- tasks -----------------------------------------------------------------------------------------------

local task_methods = {}
local Task = { __index = task_methods, __metatable = "task" }

-- Gives the error back that nobody waits for.
local function finish(task, ...)
  local ok, why = ...
  local missed = not ok and not (task.waiters and next(task.waiters))
  task.results, task.count, task.waiters = { ... }, select("#", ...), task.waiters or {}
  for _, waiter in pairs(task.waiters) do wake(waiter) end
  task.waiters = nil
  return missed, why
end

--- gate.spawn(fn, ...)
--- Starts the function, with the arguments that follow it, beside what runs now: it begins when the hook
--- next waits or
--- ends. Both may wait, and the worker goes on with others. A task ends with the request (connection,
--- timer) whose
--- hook started it, when it has not ended before. An error goes to who waits for the task; it is logged when nobody does.
--- @where every hook, timers, tasks
--- @return a task
--- @error when 10000 timers and tasks exist already
--- @example
---   local slow = gate.spawn(function() gate.sleep(0.1) return "done" end)
---   local ok, text = slow:wait(1)
function gate.spawn(fn, ...)
  if type(fn) ~= "function" then wrong("gate.spawn", "a function", fn) end
  local result = c_job_spawn(out)
  if result ~= OK then fail(result) end
  local id = out[0]
  local task, call = setmetatable({ id = id }, Task), bound(fn, ...)
  tasks[id] = task
  jobs[id] = function()
    local missed, why = finish(task, pcall(call))
    if missed then error(why, 0) end
  end
  return task
end

function core.job_over(id)
  local task = tasks[id]
  jobs[id], tasks[id] = nil, nil
  if task and not task.results then finish(task, false, "cancelled") end
end

local function as_task(what, value)
  if getmetatable(value) ~= "task" then wrong(what, "a task", value) end
  return value
end

--- task:wait(timeout)
--- Waits until the task has ended, at most so many seconds if they are given.
--- @where every hook, timers, tasks
--- @yields
--- @return true and what the function returned; false and the error that it raised, or "cancelled"; nil and
--- "timeout"
function task_methods.wait(t, timeout)
  if not t.results then
    local waiter = {}
    t.waiters = t.waiters or {}
    t.waiters[waiter] = waiter
    park(waiter, timeout, "wait")
    if not t.results then
      t.waiters[waiter] = nil
      return nil, "timeout"
    end
  end
  return unpack(t.results, 1, t.count)
end

--- task:cancel()
--- Ends the task where it waits.
--- @return whether it had not ended before
function task_methods.cancel(t)
  if t.results then return false end
  local result = c_job_cancel(t.id)
  return result == OK
end

--- gate.wait(tasks, which, timeout)
--- Waits for tasks, a list of them: until "all" have ended (if `which` is left out) or until the "first"
--- has, at most so
--- many seconds if they are given. What came of each, task:wait() says.
--- @where every hook, timers, tasks
--- @yields
--- @return with "all" true; with "first" the task and its place in the list; nil and "timeout" if time ran
--- out
--- @example
---   local a = gate.spawn(function() gate.sleep(0.1) return 1 end)
---   local b = gate.spawn(function() gate.sleep(0.2) return 2 end)
---   local winner = gate.wait({ a, b }, "first", 5)
function gate.wait(list, which, timeout)
  if type(list) ~= "table" or #list == 0 then wrong("gate.wait", "a list of tasks", list) end
  if which ~= nil and which ~= "all" and which ~= "first" then
    wrong("gate.wait", '"all" or "first"', which)
  end
  for i = 1, #list do as_task("gate.wait", list[i]) end
  local deadline = timeout and gate.now() + timeout
  while true do
    local open = 0
    for i = 1, #list do
      if not list[i].results then
        open = open + 1
      elseif which == "first" then
        return list[i], i
      end
    end
    if open == 0 then return true end
    local left = deadline and deadline - gate.now()
    if left and left <= 0 then return nil, "timeout" end
    local waiter = {}
    for i = 1, #list do
      local task = list[i]
      if not task.results then
        task.waiters = task.waiters or {}
        task.waiters[waiter] = waiter
      end
    end
    park(waiter, left, "gate.wait")
    for i = 1, #list do
      if list[i].waiters then list[i].waiters[waiter] = nil end
    end
  end
end

-- ---- semaphores ------------------------------------------------------------------------------------------

local semaphore_methods = {}
local Semaphore = { __index = semaphore_methods, __metatable = "semaphore" }
local held = {}  -- by ticket: how many of each semaphore

--- gate.semaphore(count)
--- Made at the top of a script: so many may be inside at the same time, in this worker; the others wait, and
--- get in in the order in which they came.
--- @return a semaphore
--- @example
---   local backend = gate.semaphore(10)
---   if backend:acquire(0.5) then
---     gate.sleep(0.01)
---     backend:release()
---   end
function gate.semaphore(count)
  if type(count) ~= "number" or count < 1 or count % 1 ~= 0 then
    wrong("gate.semaphore", "a number from 1 on", count)
  end
  return setmetatable({ free = count, first = 1, last = 0 }, Semaphore)
end

local function hold(semaphore, ticket)
  local mine = held[ticket]
  if not mine then
    mine = {}
    held[ticket] = mine
  end
  mine[semaphore] = (mine[semaphore] or 0) + 1
end

local function let_in(semaphore)
  while semaphore.first <= semaphore.last do
    local waiter = semaphore[semaphore.first]
    semaphore[semaphore.first] = nil
    semaphore.first = semaphore.first + 1
    if wake(waiter) then
      hold(semaphore, waiter.ticket)
      return
    end
  end
  semaphore.free = semaphore.free + 1
end

--- semaphore:acquire(timeout)
--- Comes in, or waits for it, at most so many seconds if they are given. What a hook, timer or task still
--- holds when
--- it ends, or when its client goes, is given back then.
--- @where every hook, timers, tasks
--- @yields
--- @return true, or nil and "timeout"
function semaphore_methods.acquire(t, timeout)
  if t.free > 0 then
    local ticket = my_ticket()
    t.free = t.free - 1
    hold(t, ticket)
    return true
  end
  local waiter = {}
  t.last = t.last + 1
  t[t.last] = waiter
  if park(waiter, timeout, "acquire") then return true end
  return nil, "timeout"
end

--- semaphore:release()
--- Goes out, and lets the next one in.
--- @error when this hook, timer or task is not inside
function semaphore_methods.release(t)
  local ticket = my_ticket()
  local mine = held[ticket]
  if not mine or not mine[t] then raise("release: this hook does not hold the semaphore") end
  mine[t] = mine[t] > 1 and mine[t] - 1 or nil
  let_in(t)
end

-- What the hook, timer or task that runs now has opened: close(thing) is called when it is over, however it
-- ends. Returns the table that a thing which was closed before is to be taken out of: table[thing] = nil.
local opened = {}
function core.opened(thing, close)
  local ticket = my_ticket()
  local mine = opened[ticket]
  if not mine then
    mine = {}
    opened[ticket] = mine
  end
  mine[thing] = close
  return mine
end

-- A hook, timer or task with a ticket is over.
function core.task_over(ticket)
  local mine, things = held[ticket], opened[ticket]
  held[ticket], opened[ticket] = nil, nil
  for semaphore, count in pairs(mine or {}) do
    for _ = 1, count do let_in(semaphore) end
  end
  for thing, close in pairs(things or {}) do close(thing) end
end
