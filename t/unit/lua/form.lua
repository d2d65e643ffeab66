-- SPDX-License-Identifier: BSD-2-Clause
-- Forms: what is read, however the body is cut; what is refused, and with which words.
local gate = require "moongate"

local hooks = {}

-- A source that hands out the body cut at random, or all bytes alone.
local function cut(body, most)
  local at = 1
  return function()
    if at > #body then return nil end
    local size = math.random(1, most)
    local piece = body:sub(at, at + size - 1)
    at = at + size
    return piece
  end
end

-- All that a form says, in one text.
local function told(content_type, body, most, limits)
  local form = assert(gate.form(content_type, most and cut(body, most) or body, limits))
  local parts = {}
  for field in form:fields() do
    local text = {}
    for piece in field:data() do
      assert(#piece > 0, "an empty piece")
      text[#text + 1] = piece
    end
    parts[#parts + 1] = ("%s|%s|%s=%s"):format(field.name, field.filename or "", field.type or "", table.concat(text))
  end
  if form.error then parts[#parts + 1] = form.status .. " " .. form.error end
  return table.concat(parts, ";")
end

local MULTI = "multipart/form-data; boundary=XyZ"
local function part(header, data) return "--XyZ\r\n" .. header .. "\r\n\r\n" .. data .. "\r\n" end
local function named(name, data) return part('Content-Disposition: form-data; name="' .. name .. '"', data) end

local URL = "application/x-www-form-urlencoded"
local good = {
  { URL, "", "" },
  { URL, "a", "a||=" },
  { URL, "a=", "a||=" },
  { URL, "=b", "||=b" },
  { URL, "a=1&b=2+3&c=%41%zz%4&&d", "a||=1;b||=2 3;c||=A%zz%4;d||=" },
  { URL, "a%3Db=c%26d&e=f%", "a=b||=c&d;e||=f%" },
  { URL, "&&&", "" },
  { " Application/X-WWW-Form-Urlencoded ;charset=utf-8", "a=b=c", "a||=b=c" },
  { MULTI, "--XyZ--", "" },
  { MULTI, "--XyZ--\r\n", "" },
  { MULTI, "\r\n--XyZ--\r\n", "" },
  { MULTI, named("a", "1") .. "--XyZ--\r\n", "a||text/plain=1" },
  { MULTI, named("a", "") .. named("b", "\r\n--Xy\r\n-\r\n--\r\n") .. "--XyZ--",
    "a||text/plain=;b||text/plain=\r\n--Xy\r\n-\r\n--\r\n" },
  { MULTI, part('content-disposition:form-data;name=a;filename="b c.txt"\r\nContent-Type: image/png', "\0\1\r\n\r") ..
    "--XyZ--", "a|b c.txt|image/png=\0\1\r\n\r" },
  { MULTI, "--XyZ \t\r\nContent-Disposition: form-data ; Filename=\"\" ; NAME=\"a;b\\c\"\r\nX-Other: 1\r\n\r\n\r\n--XyZ--",
    "a;b\\c||text/plain=" },
  { 'multipart/form-data; charset=x; boundary="a b"', "--a b\r\nContent-Disposition: form-data; name=x\r\n" ..
    "Content-Transfer-Encoding: Binary\r\n\r\n1\r\n--a b--", "x||text/plain=1" },
}

local function malformed(header, why) return { MULTI, part(header, "1") .. "--XyZ--", why } end
local refused = {
  { "multipart/form-data", "", "400 the form has no boundary, or one that is none" },
  { "multipart/form-data; boundary=", "", "400 the form's Content-Type: a parameter has no value" },
  { "multipart/form-data; boundary=a; boundary=b", "", "400 the form's Content-Type: a parameter is repeated" },
  { "multipart/form-data; boundary=\"a", "", "400 the form's Content-Type: a quoted parameter has no end" },
  { "multipart/form-data; boundary=a, multipart/form-data; boundary=b", "",
    "400 the form's Content-Type: a parameter is malformed" },
  { "multipart/form-data; boundary=" .. ("x"):rep(71), "", "400 the form has no boundary, or one that is none" },
  { "multipart/form-data; boundary=\"a \"", "", "400 the form has no boundary, or one that is none" },
  { MULTI, "", "400 the form does not begin with its boundary" },
  { MULTI, "a preamble\r\n--XyZ--", "400 the form does not begin with its boundary" },
  { MULTI, "--XyZ", "400 the form ends before its last boundary" },
  { MULTI, "--XyZ\r\n", "400 the form ends in the header of a part" },
  { MULTI, "--XyZ\n" .. 'Content-Disposition: form-data; name="a"\n\n1\n--XyZ--\n', "400 there is something behind a boundary" },
  { MULTI, "--XyZx\r\n\r\n", "400 there is something behind a boundary" },
  { MULTI, named("a", "1"), "a||text/plain=;400 the form ends before its last boundary" },
  { MULTI, named("a", "1") .. "--XyZ--\r\n" .. named("b", "2"),
    "a||text/plain=1;400 there is something behind the last boundary" },
  { MULTI, named("a", "1") .. "--XyZ--x", "a||text/plain=1;400 there is something behind the last boundary" },
  { MULTI, '--XyZ\r\nContent-Disposition: form-data; name="a"\r\n\r\n--XyZ--', "400 a part has no data" },
  { MULTI, "--XyZ\r\n\r\n1\r\n--XyZ--", "400 a header field of a part is malformed" },
  malformed("X: 1", "400 a part has no Content-Disposition: form-data"),
  malformed("Content-Disposition: attachment; name=a", "400 a part has no Content-Disposition: form-data"),
  malformed("Content-Disposition: form-data", "400 a part has no name"),
  malformed("Content-Disposition: form-data; name=a; name=b", "400 a parameter is repeated"),
  malformed("Content-Disposition: form-data; name=a; NAME=b", "400 a parameter is repeated"),
  malformed('Content-Disposition: form-data; name="a\\"; filename="b"', "400 a quote behind a backslash can be read in two ways"),
  malformed('Content-Disposition: form-data; name="a', "400 a quoted parameter has no end"),
  malformed('Content-Disposition: form-data; name="a"b', "400 a parameter is malformed"),
  malformed("Content-Disposition: form-data; name=a; filename*=UTF-8''b", "400 filename* and name* are no parameters of a form"),
  malformed("Content-Disposition: form-data; name = a", "400 a parameter is malformed"),
  malformed("Content-Disposition: form-data; name=a\r\nContent-Disposition: form-data; name=b",
    "400 a header field of a part is repeated"),
  malformed("Content-Disposition: form-data;\r\n name=a", "400 a header field of a part is malformed"),
  malformed("Content-Disposition : form-data; name=a", "400 a header field of a part is malformed"),
  malformed('Content-Disposition: form-data; name="a\0b"', "400 a header field of a part is malformed"),
  malformed('Content-Disposition: form-data; name="a\nb"', "400 a header field of a part is malformed"),
  malformed("Content-Disposition: form-data; name=a\r\nContent-Transfer-Encoding: base64",
    "400 a part has a Content-Transfer-Encoding"),
}

local function check(case, most, limits)
  local got = told(case[1], case[2], most, limits)
  assert(got == case[3], ("%q in pieces of %s: expected %q, got %q"):format(case[2], most or "all", case[3], got))
end

function hooks.request()
  for _, cases in ipairs { good, refused } do
    for _, case in ipairs(cases) do
      check(case)
      for _, most in ipairs { 1, 2, 3, 7, 50 } do
        for _ = 1, 5 do check(case, most) end
      end
    end
  end

  -- Random bodies, of what boundaries and escapes are made of, cut at random.
  local pieces = { "\r\n", "\r", "\n", "--", "-", "XyZ", "--XyZ", "\r\n--Xy", "a", "&", "=", "%4", "%41", "+", "" }
  for _ = 1, 500 do
    local parts, url = {}, {}
    for _ = 1, math.random(0, 12) do
      local one = pieces[math.random(#pieces)]
      parts[#parts + 1], url[#url + 1] = one, one
    end
    local text = table.concat(url)
    assert(told(URL, text, math.random(1, 5)) == told(URL, text), ("%q"):format(text))
    text = named("a", table.concat(parts)) .. "--XyZ--\r\n"
    assert(told(MULTI, text, math.random(1, 5)) == told(MULTI, text), ("%q"):format(text))
    text = table.concat(parts)
    assert(told(MULTI, text, math.random(1, 5)) == told(MULTI, text), ("%q"):format(text))
  end
  for _ = 1, 50 do -- data that is long and looks like boundaries
    local parts = {}
    for i = 1, math.random(1, 400) do parts[i] = pieces[math.random(5)] .. "-Xy" end
    local data = "d" .. table.concat(parts)
    assert(told(MULTI, named("a", data) .. named("b", data) .. "--XyZ--", math.random(1, 3000)) ==
      "a||text/plain=" .. data .. ";b||text/plain=" .. data)
  end

  -- Limits.
  assert(told(URL, "a=1&b=2", nil, { fields = 2 }) == "a||=1;b||=2")
  assert(told(URL, "a=1&b=2&c=3", nil, { fields = 2 }) == "a||=1;b||=2;413 the form has more than 2 fields")
  assert(told(URL, "abc=1", nil, { name = 3 }) == "abc||=1")
  assert(told(URL, "abcd=1", nil, { name = 3 }) == "413 a name is longer than 3 bytes")
  assert(told(URL, ("x"):rep(1000000), 100, { name = 3 }) == "413 a name is longer than 3 bytes")
  assert(told(MULTI, named("abcd", "") .. "--XyZ--", nil, { name = 3 }) == "413 a name is longer than 3 bytes")
  local two = named("a", "1") .. named("b", "2") .. "--XyZ--"
  assert(told(MULTI, two, 3, { fields = 2 }) == "a||text/plain=1;b||text/plain=2")
  assert(told(MULTI, two, 3, { fields = 1 }) == "a||text/plain=1;413 the form has more than 1 fields")
  for _, most in ipairs { 1, 4, 100000 } do
    assert(told(MULTI, "--XyZ\r\nX: " .. ("x"):rep(20000), most) == "413 the header of a part is longer than 8192 bytes")
  end

  -- Reading a value; skipping one; a field whose time is over.
  local form = gate.form(MULTI, cut(named("a", ("x"):rep(100)) .. named("b", "2") .. named("c", "3") .. "--XyZ--", 10))
  local seen, first = {}, nil
  for field in form:fields() do
    if field.name == "a" then
      local value, why = field:read(99)
      assert(value == nil and why == "too large")
      first = field
    elseif field.name == "c" then
      assert(first:read() == "" and first:data()() == nil)
      assert(field:read(1) == "3" and field:read() == "")
    end
    seen[#seen + 1] = field.name
  end
  assert(table.concat(seen) == "abc" and form.error == nil)
  for field in gate.form(MULTI, '--XyZ\r\nContent-Disposition: form-data; name="a"\r\n\r\nabc'):fields() do
    local value, why = field:read()
    assert(value == nil and why == "the form ends before its last boundary")
  end

  -- Memory: a part of 64 MiB goes through in pieces of 64 KiB.
  local left, piece = 1024, ("x"):rep(65536)
  local begun, ended = false, false
  form = gate.form(MULTI, function()
    if not begun then
      begun = true
      return '--XyZ\r\nContent-Disposition: form-data; name="a"; filename="b"\r\n\r\n'
    end
    if left > 0 then
      left = left - 1
      return piece
    end
    if not ended then
      ended = true
      return "\r\n--XyZ--\r\n"
    end
  end)
  local size = 0
  for field in form:fields() do
    for data in field:data() do size = size + #data end
  end
  assert(size == 64 * 1024 * 1024 and not form.error)

  -- Wrong calls.
  assert(gate.form("text/plain", "") == nil and select(2, gate.form("text/plain", "")) == "no form")
  assert(gate.form(nil, "") == nil)
  for _, call in ipairs {
    function() gate.form(URL, 1) end,
    function() gate.form(1, "") end,
    function() gate.form(URL, "", 5) end,
    function() gate.form(URL, "", { size = 1 }) end,
    function() gate.form(URL, "", { name = "x" }) end,
    function() gate.form(URL, ""):pass() end,
  } do assert(not pcall(call)) end
end

return hooks
