-- SPDX-License-Identifier: BSD-2-Clause
-- Forms, field by field, as their bodies arrive: application/x-www-form-urlencoded and multipart/form-data (RFC 7578).
-- What a browser or curl sends is read; what two parsers could read in two ways is an error. Memory is bounded by the
-- piece that is being read and by the limits.
local core = ...

local gate, raise, wrong = core.parts.gate, core.parts.raise, core.parts.wrong
local request_methods = core.parts.request_methods
local type, pairs, setmetatable, tostring = type, pairs, setmetatable, tostring
local find, sub, lower, match, concat = string.find, string.sub, string.lower, string.match, table.concat
local unescape = gate.query.unescape

local DEFAULTS = { fields = 1000, name = 1024, headers = 8192, value = 65536 }
local DECODED = 65536 -- bytes of a value that are decoded at a time

local form_methods, field_methods = {}, {}
local Form = { __index = form_methods, __metatable = "form" }
local Field = { __index = field_methods, __metatable = "field" }

-- The form has ended with an error: nil, for those who look for more.
local function bad(form, status, message)
  if form.error then return nil end
  form.error, form.status, form.over = message, status, true
  form.buffer, form.at = "", 1
  if form.refuse then form.refuse(status) end
  return nil
end

-- Adds the next piece of the body behind what is not read yet. False at its end.
local function more(form)
  local piece = not form.ended and form.source()
  if not piece then
    form.ended = true
    return false
  end
  form.buffer = form.at > #form.buffer and piece or sub(form.buffer, form.at) .. piece
  form.at = 1
  return true
end

-- At least `count` bytes that are not read yet, if the body has so many.
local function need(form, count)
  while #form.buffer - form.at + 1 < count do
    if not more(form) then return false end
  end
  return true
end

-- ---- application/x-www-form-urlencoded --------------------------------------------------------------------

local urlencoded = {}

function urlencoded.piece(form)
  while true do
    local buffer, at = form.buffer, form.at
    local stop = find(buffer, "&", at, true)
    local last = stop and stop - 1 or #buffer
    local whole = stop or form.ended
    if last - at + 1 > DECODED then
      last, whole = at + DECODED - 1, false
    end
    if not whole then -- an escape that is cut waits for its other part
      local tail = match(sub(buffer, last > at and last - 1 or at, last), "%%%x?$")
      if tail then last = last - #tail end
    end
    if last >= at then
      form.at = last + 1
      return unescape(sub(buffer, at, last))
    end
    if whole then
      form.at, form.inside = stop and stop + 1 or at, false
      return nil
    end
    more(form)
  end
end

function urlencoded.next_field(form)
  local limits = form.limits
  while true do
    local stop = find(form.buffer, "[=&]", form.at)
    local length = (stop or #form.buffer + 1) - form.at
    if length > 3 * limits.name then return bad(form, 413, "a name is longer than " .. limits.name .. " bytes") end
    if stop or not more(form) then
      local name = unescape(sub(form.buffer, form.at, stop and stop - 1 or -1))
      local value = stop and sub(form.buffer, stop, stop) == "="
      form.at = stop and stop + 1 or #form.buffer + 1
      if #name > limits.name then return bad(form, 413, "a name is longer than " .. limits.name .. " bytes") end
      if name ~= "" or value then
        form.inside = value
        return { name = name, form = form }
      end
      if not stop then
        form.over = true
        return nil
      end
    end
  end
end

-- ---- multipart/form-data ----------------------------------------------------------------------------------

-- Parameters ("; name=value"), by lower-case name; nil and why when they are not of that form, or can be read in
-- two ways.
local function parameters(text)
  local found, at = {}, 1
  while true do
    at = find(text, "[^ \t]", at)
    if not at then return found end
    local name, stop = match(text, "^;[ \t]*([%w!#$%%&'*+.^_`|~-]+)=()", at)
    if not name then
      if match(text, "^;[ \t]*$", at) then return found end
      return nil, "a parameter is malformed"
    end
    name = lower(name)
    local value
    if sub(text, stop, stop) == '"' then
      local close = find(text, '"', stop + 1, true)
      if not close then return nil, "a quoted parameter has no end" end
      value, at = sub(text, stop + 1, close - 1), close + 1
      if sub(value, -1) == "\\" then return nil, "a quote behind a backslash can be read in two ways" end
    else
      value, at = match(text, "^([^%s;\"]+)()", stop)
      if not value then return nil, "a parameter has no value" end
    end
    if found[name] then return nil, "a parameter is repeated" end
    found[name] = value
  end
end

local PLAIN = { ["7bit"] = true, ["8bit"] = true, binary = true }

-- The field that a part's header is about; nil, why and the status.
local function field_of(form, block)
  local seen = {}
  for line in (block .. "\r\n"):gmatch("(.-)\r\n") do
    local name, value = match(line, "^([%w!#$%%&'*+.^_`|~-]+):[ \t]*(.-)[ \t]*$")
    if not name or find(line, "[%z\1-\8\10-\31\127]") then return nil, "a header field of a part is malformed", 400 end
    name = lower(name)
    if seen[name] then return nil, "a header field of a part is repeated", 400 end
    seen[name] = value
  end
  local disposition = seen["content-disposition"] or ""
  if lower(match(disposition, "^[^; \t]*")) ~= "form-data" then
    return nil, "a part has no Content-Disposition: form-data", 400
  end
  local found, why = parameters(sub(disposition, #"form-data" + 1))
  if not found then return nil, why, 400 end
  if found["name*"] or found["filename*"] then
    return nil, "filename* and name* are no parameters of a form", 400 -- RFC 7578, 4.2
  end
  if not found.name then return nil, "a part has no name", 400 end
  if #found.name > form.limits.name then
    return nil, "a name is longer than " .. form.limits.name .. " bytes", 413
  end
  local encoding = seen["content-transfer-encoding"]
  if encoding and not PLAIN[lower(encoding)] then return nil, "a part has a Content-Transfer-Encoding", 400 end
  return { name = found.name, filename = found.filename, type = seen["content-type"] or "text/plain", form = form }
end

local multipart = {}

function multipart.piece(form)
  local delimiter = form.delimiter
  while true do
    local buffer, at = form.buffer, form.at
    local stop = find(buffer, delimiter, at, true)
    if stop then
      form.at, form.inside = stop + #delimiter, false
      if stop > at then return sub(buffer, at, stop - 1) end
      return nil
    end
    local safe = #buffer - #delimiter + 1 -- the rest may be the beginning of a boundary
    if safe >= at then
      form.at = safe + 1
      return sub(buffer, at, safe)
    end
    if not more(form) then return bad(form, 400, "the form ends before its last boundary") end
  end
end

-- The first boundary stands at the beginning: what is in front of it would be a hiding place.
local function begin(form)
  local boundary = sub(form.delimiter, 3)
  need(form, #boundary + 2)
  if sub(form.buffer, form.at, form.at + 1) == "\r\n" then form.at = form.at + 2 end
  need(form, #boundary)
  if sub(form.buffer, form.at, form.at + #boundary - 1) ~= boundary then
    return bad(form, 400, "the form does not begin with its boundary")
  end
  form.at, form.begun = form.at + #boundary, true
  return true
end

-- Behind the last boundary: the end of its line, and nothing more.
local function finish(form)
  form.at = form.at + 2
  need(form, 3)
  local rest = sub(form.buffer, form.at)
  if rest ~= "" and rest ~= "\r\n" then return bad(form, 400, "there is something behind the last boundary") end
  form.over = true
  return nil
end

function multipart.next_field(form)
  if not form.begun and not begin(form) then return nil end
  if not need(form, 2) then return bad(form, 400, "the form ends before its last boundary") end
  if sub(form.buffer, form.at, form.at + 1) == "--" then return finish(form) end
  local most = form.limits.headers
  while true do
    local line = find(form.buffer, "[^ \t]", form.at)
    if line and line < #form.buffer and sub(form.buffer, line, line + 1) ~= "\r\n" then
      return bad(form, 400, "there is something behind a boundary")
    end
    local stop = line and find(form.buffer, "\r\n\r\n", line, true)
    if (stop or #form.buffer) - form.at > most + 4 then
      return bad(form, 413, "the header of a part is longer than " .. most .. " bytes")
    end
    if stop then
      local field, why, status = field_of(form, sub(form.buffer, line + 2, stop - 1))
      if not field then return bad(form, status, why) end
      form.at, form.inside = stop + 4, true
      local boundary = sub(form.delimiter, 3)
      if need(form, #boundary) and sub(form.buffer, form.at, form.at + #boundary - 1) == boundary then
        return bad(form, 400, "a part has no data")
      end
      return field
    end
    if not more(form) then return bad(form, 400, "the form ends in the header of a part") end
  end
end

-- ---- both -------------------------------------------------------------------------------------------------

local function limits_of(limits)
  local all = {}
  for name, value in pairs(DEFAULTS) do all[name] = value end
  if limits == nil then return all end
  if type(limits) ~= "table" then wrong("form", "a table of limits", limits) end
  for name, value in pairs(limits) do
    if not DEFAULTS[name] then raise('form: unknown limit "' .. tostring(name) .. '"') end
    if type(value) ~= "number" or not (value >= 0) then wrong("form's limit " .. name, "a number", value) end
    all[name] = value
  end
  return all
end

local function form_new(content_type, source, limits, refuse)
  limits = limits_of(limits)
  local media = lower(match(content_type or "", "^[ \t]*([^; \t]*)"))
  local form = setmetatable({ source = source, limits = limits, refuse = refuse, buffer = "", at = 1, count = 0 }, Form)
  if media == "application/x-www-form-urlencoded" then
    form.kind = urlencoded
    return form
  end
  if media ~= "multipart/form-data" then return nil, "no form" end
  form.kind = multipart
  local found, why = parameters(match(content_type, "^[ \t]*[^; \t]*(.*)$"))
  local boundary = found and found.boundary
  if not found then
    bad(form, 400, "the form's Content-Type: " .. why)
  elseif not boundary or #boundary > 70 or not match(boundary, "^[%w'()+_,./:=? -]*[%w'()+_,./:=?-]$") then
    bad(form, 400, "the form has no boundary, or one that is none")
  else
    form.delimiter = "\r\n--" .. boundary
  end
  return form
end

--- gate.form(content_type, source, limits)
--- Reads a form: source is its body, a string or a function that returns the next piece and at the end nil.
--- content_type is the field of the message: multipart/form-data with its boundary (RFC 7578), or
--- application/x-www-form-urlencoded, whose names and values are decoded as those of req.args. limits is a table or nil:
--- fields, how many there may be (1000); name, bytes of a name (1024); headers, bytes of the header of a part (8192);
--- value, bytes of a value that field:read() takes (65536).
--- @return a form; nil and a message for any other content type
--- @example
---   local form = gate.form("application/x-www-form-urlencoded", "a=1&b=2+3")
---   for field in form:fields() do gate.log.info(field.name, field:read()) end
---   assert(not form.error, form.error)
function gate.form(content_type, source, limits)
  if type(source) == "string" then
    local text = source
    source = function()
      local piece = text
      text = nil
      return piece
    end
  elseif type(source) ~= "function" then
    wrong("gate.form", "a string or a function", source)
  end
  if content_type ~= nil and type(content_type) ~= "string" then wrong("gate.form", "a content type", content_type) end
  return form_new(content_type, source, limits)
end

--- req:form(limits)
--- Reads the body as a form, while it passes: each piece of it goes on as soon as the hook has seen all fields in it.
--- A form that is malformed or passes a limit is given up at once, with 400 or 413 (req:abort), so that no more of it
--- gets to the server. A hook that has seen enough calls form:pass(); what a hook leaves without that is dropped.
--- limits as with gate.form().
--- @where request_body
--- @return a form; nil and a message when the body is none by its Content-Type: then the hook decides what becomes of
--- it. A request with several Content-Types is given up with 400
--- @yields
--- @example
---   function hooks.request_body(req)
---     local form = req:form { fields = 100 }
---     if not form then return req:pass() end
---     for field in form:fields() do
---       if (field.filename or ""):lower():find("%.exe$") then return req:abort(415) end
---     end
---   end
function request_methods.form(t, limits)
  local next_piece = request_methods.body(t)
  local held
  local function source()
    if held then
      local piece = held
      held = nil
      request_methods.write(t, piece)
    end
    held = next_piece(t)
    return held
  end
  -- With several types the server may take it for a form where we do not.
  local types = t.headers:all("content-type")
  local form, why = form_new(#types > 1 and "application/x-www-form-urlencoded" or types[1], source, limits,
    function(status) request_methods.abort(t, status) end)
  if not form then return nil, why end
  if #types > 1 then bad(form, 400, "the request has several Content-Types") end
  form.let_go = function()
    local piece = held
    held = nil
    if piece then request_methods.write(t, piece) end
    request_methods.pass(t)
  end
  return form
end

--- form:fields()
--- Goes through the fields in order. field.name is its name; of a multipart form field.filename is the name of the
--- file that it holds (nil for none; never to be used as a path as it is) and field.type the Content-Type of its data,
--- "text/plain" if it has none. What is not read of a field's data is skipped.
--- @yields where it waits for the body
--- @example
---   local body = '--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n'
---   local form = gate.form("multipart/form-data; boundary=x", body)
---   for field in form:fields() do assert(field.name == "a" and field:read() == "1") end
function form_methods.fields(form)
  return function()
    local kind = form.kind
    while form.inside and not form.over do kind.piece(form) end
    if form.over then return nil end
    if form.count >= form.limits.fields then
      -- Only when there is one more: the end may be all that is left.
      if kind.next_field(form) then bad(form, 413, "the form has more than " .. form.limits.fields .. " fields") end
    else
      local field = kind.next_field(form)
      if field then
        form.count = form.count + 1
        field.number = form.count
        return setmetatable(field, Field)
      end
    end
    if not form.error and form.let_go then form.let_go() end
    return nil
  end
end

--- form.error
--- What was wrong with the form, when the loop over its fields has ended; nil for nothing. form.status is 400 for a
--- form that is malformed and 413 for one that passes a limit. Of the form of req:form() the request was given up then.
--- @example
---   local form = gate.form("multipart/form-data; boundary=x", "--x\r\n")
---   for field in form:fields() do gate.log.info(field.name) end
---   if form.error then gate.log.warn(form.status, form.error) end

--- form:pass()
--- Passes on what is left of the body of req:form(), without looking at it.
--- @where request_body
--- @example
---   function hooks.request_body(req)
---     local form = req:form()
---     if not form then return req:pass() end
---     for field in form:fields() do
---       if field.name == "token" then return form:pass() end
---     end
---   end
function form_methods.pass(form)
  if not form.let_go then raise("form:pass() is for the forms of req:form()") end
  if form.over then return end
  form.over = true
  form.let_go()
end

--- field:data()
--- Goes through the data of the field in pieces of any size, decoded. Only until the next field is asked for.
--- @yields where it waits for the body
--- @example
---   local size, form = 0, gate.form("application/x-www-form-urlencoded", "text=one+two")
---   for field in form:fields() do
---     for piece in field:data() do size = size + #piece end
---   end
function field_methods.data(field)
  local form = field.form
  return function()
    if form.over or not form.inside or field.number ~= form.count then return nil end
    return form.kind.piece(form)
  end
end

--- field:read(limit)
--- @return the data of the field as a string; nil and "too large" if it has more than `limit` bytes (the form's limit
--- value if left out), nil and form.error if the form broke off in it
--- @yields where it waits for the body
--- @example
---   local form = gate.form("application/x-www-form-urlencoded", "name=Selene")
---   for field in form:fields() do
---     local value, why = field:read(100)
---     if not value then gate.log.warn(field.name, why) end
---   end
function field_methods.read(field, limit)
  limit = limit or field.form.limits.value
  if type(limit) ~= "number" then wrong("read", "bytes", limit) end
  local pieces, size = {}, 0
  for piece in field_methods.data(field) do
    size = size + #piece
    if size > limit then return nil, "too large" end
    pieces[#pieces + 1] = piece
  end
  if field.form.error then return nil, field.form.error end
  local text = concat(pieces)
  return text
end
