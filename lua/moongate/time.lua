-- SPDX-License-Identifier: BSD-2-Clause
-- gate.time: clocks, and dates as HTTP and RFC 3339 write them. The work is base/date.c's.
local core = ...

local gate, C, ffi = core.parts.gate, core.parts.C, core.parts.ffi
local fail, wrong = core.parts.fail, core.parts.wrong
local type, ffi_string = type, ffi.string
local OK, HTTP, RFC3339 = ffi.C.MG_OK, ffi.C.MG_DATE_HTTP, ffi.C.MG_DATE_RFC3339
local c_now, c_monotonic, c_print, c_parse = C.now, C.monotonic, C.date_print, C.date_parse
local out, out_number = ffi.new("struct mg_text"), ffi.new("double[1]")

gate.time = {}

--- gate.time.now()
--- @return the time in seconds since 1970, with fractions, as gate.now()
--- @example
---   local age = gate.time.now() - req.conn.started
function gate.time.now()
  local number = c_now()
  return number
end

--- gate.time.monotonic()
--- @return seconds since some moment in the past, on a clock that nobody sets: for durations
--- @example
---   local from  = gate.time.monotonic()
---   local spent = gate.time.monotonic() - from
function gate.time.monotonic()
  local number = c_monotonic()
  return number
end

local function print_date(format, seconds, digits, what)
  if type(seconds) ~= "number" then wrong(what, "seconds since 1970", seconds) end
  local result = c_print(format, seconds, digits, out)
  if result ~= OK then fail(result) end
  local text = ffi_string(out.at, out.len)
  return text
end

local function parse_date(format, text, what, message)
  if type(text) ~= "string" then wrong(what, "a string", text) end
  if c_parse(format, text, #text, out_number) ~= OK then return nil, message end
  return out_number[0]
end

--- gate.time.http(seconds)
--- @return a date as header fields have it (RFC 9110, 5.6.7); seconds since 1970, now if left out
--- @error for a time outside of the years 0 to 9999
--- @example
---   local date = gate.time.http(784111777)               -- "Sun, 06 Nov 1994 08:49:37 GMT"
function gate.time.http(seconds)
  local text = print_date(HTTP, seconds or c_now(), 0, "gate.time.http")
  return text
end

--- gate.time.parse_http(text)
--- Reads a date of a header field, in the format that gate.time.http() writes or one of the two old ones that
--- RFC 9110 asks a recipient to take.
--- @return seconds since 1970, or nil and a message
--- @example
---   local seconds = gate.time.parse_http("Sunday, 06-Nov-94 08:49:37 GMT")   -- 784111777
function gate.time.parse_http(text)
  local seconds, message = parse_date(HTTP, text, "gate.time.parse_http", "not an HTTP date")
  return seconds, message
end

--- gate.time.rfc3339(seconds, digits)
--- @return a date and time in UTC as RFC 3339 has it, with 0 to 9 digits of a second's fraction (0 if left
--- out); seconds since 1970, now if left out
--- @error as gate.time.http()
--- @example
---   local date = gate.time.rfc3339(784111777.25, 3)      -- "1994-11-06T08:49:37.250Z"
function gate.time.rfc3339(seconds, digits)
  digits = digits or 0
  if type(digits) ~= "number" or not (digits >= 0 and digits <= 9) then
    wrong("gate.time.rfc3339", "0 to 9 digits", digits)
  end
  local text = print_date(RFC3339, seconds or c_now(), digits, "gate.time.rfc3339")
  return text
end

--- gate.time.parse_rfc3339(text)
--- Reads a date and time of RFC 3339, with any offset from UTC.
--- @return seconds since 1970, with fractions, or nil and a message
--- @example
---   local seconds = gate.time.parse_rfc3339("1994-11-06T09:49:37.25+01:00")   -- 784111777.25
function gate.time.parse_rfc3339(text)
  local seconds, message = parse_date(RFC3339, text, "gate.time.parse_rfc3339", "not a date of RFC 3339")
  return seconds, message
end
