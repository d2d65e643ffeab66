-- SPDX-License-Identifier: BSD-2-Clause
-- Dates of HTTP (the example of RFC 9110, 5.6.7) and of RFC 3339, and what must be refused.
local gate = require "moongate"
local time = gate.time

local function is(got, expected)
  if got ~= expected then error("expected " .. tostring(expected) .. ", got " .. tostring(got), 2) end
end
local function refuses(message, call, ...)
  local ok, why = pcall(call, ...)
  if ok or not tostring(why):find(message, 1, true) then error("expected an error with " .. message .. ", got " .. tostring(why), 2) end
end

is(time.http(784111777), "Sun, 06 Nov 1994 08:49:37 GMT")
is(time.http(784111777.9), "Sun, 06 Nov 1994 08:49:37 GMT")
is(time.http(0), "Thu, 01 Jan 1970 00:00:00 GMT")
is(time.http(-1), "Wed, 31 Dec 1969 23:59:59 GMT")
is(time.http(951782400), "Tue, 29 Feb 2000 00:00:00 GMT")
is(time.http(253402300799), "Fri, 31 Dec 9999 23:59:59 GMT")
for _, text in ipairs { "Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994" } do
  is(time.parse_http(text), 784111777)
end
is(time.parse_http("Sun Nov 16 08:49:37 1994"), 784111777 + 864000)
is(time.parse_http("Sat, 31 Dec 2016 23:59:60 GMT"), 1483228799)
-- Two digits are within 50 years from now.
local year = tonumber(os.date("!%Y"))
is(time.parse_http(("Monday, 01-Jan-%02d 00:00:00 GMT"):format((year + 50) % 100)),
  time.parse_http(("Mon, 01 Jan %d 00:00:00 GMT"):format(year + 50)))
is(time.parse_http(("Monday, 01-Jan-%02d 00:00:00 GMT"):format((year + 51) % 100)),
  time.parse_http(("Mon, 01 Jan %d 00:00:00 GMT"):format(year - 49)))
for _, bad in ipairs { "", "x", "Sun", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Nov 1994 08:49:37 UTC", "Sun, 6 Nov 1994 08:49:37 GMT",
    "sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 nov 1994 08:49:37 GMT", "Sun, 31 Feb 1994 08:49:37 GMT", "Sun, 00 Nov 1994 08:49:37 GMT",
    "Thu, 29 Feb 1900 00:00:00 GMT", "Sun, 06 Nov 1994 24:00:00 GMT", "Sun, 06 Nov 1994 08:60:00 GMT", "Sun, 06 Nov 1994 08:49:61 GMT",
    "Sun, 06 Nov 1994 08:49:37 GMT ", " Sun, 06 Nov 1994 08:49:37 GMT", "Sun,06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 94 08:49:37 GMT",
    "Sunday, 06 Nov 1994 08:49:37 GMT", "Sun Nov 6 08:49:37 1994", "Sun, 06 Nov 1994 08:49:37 GMT\0", "Sun, 06 Nov -994 08:49:37 GMT" } do
  local seconds, why = time.parse_http(bad)
  is(seconds, nil)
  is(why, "not an HTTP date")
end

is(time.rfc3339(784111777), "1994-11-06T08:49:37Z")
is(time.rfc3339(784111777.25, 3), "1994-11-06T08:49:37.250Z")
is(time.rfc3339(784111777.123, 3), "1994-11-06T08:49:37.123Z")
is(time.rfc3339(784111777.9999, 3), "1994-11-06T08:49:38.000Z")
is(time.rfc3339(784111777.9999), "1994-11-06T08:49:37Z")
is(time.rfc3339(-0.25, 2), "1969-12-31T23:59:59.75Z")
is(time.parse_rfc3339("1994-11-06T08:49:37Z"), 784111777)
is(time.parse_rfc3339("1994-11-06t08:49:37z"), 784111777)
is(time.parse_rfc3339("1994-11-06 08:49:37+00:00"), 784111777)
is(time.parse_rfc3339("1994-11-06T09:49:37.25+01:00"), 784111777.25)
is(time.parse_rfc3339("1994-11-05T20:19:37-12:30"), 784111777)
is(time.parse_rfc3339("1985-04-12T23:20:50.52Z"), 482196050.52)
is(time.parse_rfc3339("1990-12-31T15:59:60-08:00"), 662687999)
for second = 0, 2e9, 12345678 do
  is(time.parse_http(time.http(second)), second)
  is(time.parse_rfc3339(time.rfc3339(second)), second)
end
for _, bad in ipairs { "", "1994-11-06", "1994-11-06T08:49:37", "1994-11-06T08:49:37.Z", "1994-11-06T08:49Z", "94-11-06T08:49:37Z",
    "1994-13-06T08:49:37Z", "1994-00-06T08:49:37Z", "1994-02-30T08:49:37Z", "1994-11-06T08:49:37+0100", "1994-11-06T08:49:37+24:00",
    "1994-11-06T08:49:37+00:60", "1994-11-06T08:49:37ZZ", "1994-11-06T08:49:37Z\n", "1994-11-06X08:49:37Z", "+994-11-06T08:49:37Z" } do
  local seconds, why = time.parse_rfc3339(bad)
  is(seconds, nil)
  is(why, "not a date of RFC 3339")
end

is(math.abs(time.now() - gate.now()) < 5, true)
local from = time.monotonic()
is(time.monotonic() >= from, true)
is(time.parse_http(time.http()) <= time.now(), true)

refuses("gate.time.http: expected seconds since 1970, got a string", time.http, "0")
refuses("that time is not in the years 0000 to 9999", time.http, 253402300800)
refuses("that time is not in the years 0000 to 9999", time.http, 0 / 0)
refuses("that time is not in the years 0000 to 9999", time.rfc3339, 1 / 0)
refuses("gate.time.rfc3339: expected 0 to 9 digits", time.rfc3339, 0, 10)
refuses("gate.time.parse_http: expected a string, got nil", time.parse_http)
refuses("gate.time.parse_rfc3339: expected a string, got a number", time.parse_rfc3339, 5)

return {}
