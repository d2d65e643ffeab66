-- SPDX-License-Identifier: BSD-2-Clause
-- Bodies for scripts: iterators and waits over src/script/api_body.c. In the body hooks a body comes in pieces and
-- goes on as it is written; in the hooks before it can be had, and replaced, as a whole.
local core = ...

local C, ffi = core.parts.C, core.parts.ffi
local fail, wrong, text_of = core.parts.fail, core.parts.wrong, core.parts.text_of
local request_methods, response_methods = core.parts.request_methods, core.parts.response_methods
local type, floor, ffi_string, yield = type, math.floor, ffi.string, coroutine.yield
local WAIT, VERDICT = core.wait, core.verdict
local OK, NONE, AGAIN, CUT = ffi.C.MG_OK, ffi.C.MG_NONE, ffi.C.MG_WAIT, ffi.C.MG_CUT
local REQUEST, RESPONSE = ffi.C.MG_REQUEST, ffi.C.MG_RESPONSE
local c_read, c_write, c_pass, c_append, c_abort = C.body_read, C.body_write, C.body_pass, C.body_append, C.body_abort
local c_whole, c_replace = C.body_whole, C.body_replace
local out = ffi.new("struct mg_text")

-- ---- piece by piece ---------------------------------------------------------------------------------------

local function next_chunk(t, whose)
  while true do
    local result = c_read(t[1], whose, out)
    if result == OK then
      local text = ffi_string(out.at, out.len)
      return text
    end
    if result == NONE then return nil end
    if result ~= AGAIN then fail(result, "exchange") end
    yield(WAIT)
  end
end

local function write_chunk(t, whose, text)
  text = text_of(text, "write")
  local result = c_write(t[1], whose, text, #text)
  if result == OK then return end
  if result ~= AGAIN then fail(result, "exchange") end
  yield(WAIT)
end

local function pass(t, whose)
  local result = c_pass(t[1], whose)
  if result ~= OK then fail(result, "exchange") end
end

local function append(t, whose, text)
  text = text_of(text, "append")
  local result = c_append(t[1], whose, text, #text)
  if result ~= OK then fail(result, "exchange") end
end

local function abort(t, whose, status)
  if type(status) ~= "number" or status ~= floor(status) then
    wrong("abort", "a status (400 to 599)", status)
  end
  local result = c_abort(t[1], whose, status)
  if result ~= OK then fail(result, "exchange") end
  return VERDICT
end

--- req:body()
--- Goes through the body as it arrives, in pieces of any size; a text that is looked for may be cut between
--- two of them. The hook waits where the next piece has not come yet, and the client is held back while nothing is
--- read. What is not written is dropped, and so is what a hook has neither read nor passed on when it returns.
---
--- Content-Length, Transfer-Encoding and Trailer of what goes on are the runtime's affair; fields that hold a
--- digest of the body are removed as soon as a hook reads or writes some of it.
--- @where request_body
--- @yields
--- @example
---   function hooks.request_body(req)
---     for chunk in req:body() do req:write(chunk:upper()) end
---   end
local function next_request_chunk(t) return next_chunk(t, REQUEST) end
function request_methods.body(t) return next_request_chunk, t end

--- req:write(text)
--- Sends text on to the upstream server, or to the request_body hook of the next script. Waits while the
--- receiver is slow.
--- @where request_body
--- @error after req:pass()
--- @yields
function request_methods.write(t, text) return write_chunk(t, REQUEST, text) end

--- req:pass()
--- Passes on what is left of the body as it is: nothing more of it is copied into Lua, nor can be read. A hook
--- that calls it first of all leaves the request as it came, with its Content-Length.
--- @where request_body
--- @example
---   function hooks.request_body(req)
---     if req.headers["content-type"] ~= "text/plain" then return req:pass() end
---     for chunk in req:body() do req:write((chunk:gsub("secret", "******"))) end
---   end
function request_methods.pass(t) return pass(t, REQUEST) end

--- req:prepend(text)
--- Sends text on, and behind it what is left of the body, as req:pass() does.
--- @where request_body
--- @error after req:pass()
--- @yields
--- @example
---   function hooks.request_body(req) req:prepend("begin\n") end
function request_methods.prepend(t, text)
  write_chunk(t, REQUEST, text)
  return pass(t, REQUEST)
end

--- req:append(text)
--- Passes on what is left of the body as req:pass() does, and at its end text. May be called again.
--- @where request_body
--- @error for more than script_body_limit bytes together
--- @example
---   function hooks.request_body(req) req:append("end\n") end
function request_methods.append(t, text) return append(t, REQUEST, text) end

--- req:abort(status)
--- Gives the request up: the client gets moongate's answer with that status, 400 to 599 (the error hook is asked),
--- the upstream server sees its connection end. Where the response has begun already it is cut off. A verdict:
--- return what it returns.
--- @where request_body
--- @example
---   function hooks.request_body(req)
---     for chunk in req:body() do
---       if chunk:find("\0", 1, true) then return req:abort(400) end
---       req:write(chunk)
---     end
---   end
function request_methods.abort(t, status) return abort(t, REQUEST, status) end

--- res:body()
--- As req:body(), for the body of the response. Where a response has none (HEAD, 204, 304) the hook is not
--- called. Once a hook has read or written some of it the response loses Content-Length, digests and
--- Accept-Ranges, and its ETag becomes a weak one.
--- @where response_body
--- @yields
--- @example
---   function hooks.response_body(req, res)
---     for chunk in res:body() do res:write((chunk:gsub("secret", "******"))) end
---   end
local function next_response_chunk(t) return next_chunk(t, RESPONSE) end
function response_methods.body(t) return next_response_chunk, t end

--- res:write(text)
--- Sends text on to the client, or to the response_body hook of the next script. Waits while the receiver is
--- slow.
--- @where response_body
--- @error after res:pass()
--- @yields
function response_methods.write(t, text) return write_chunk(t, RESPONSE, text) end

--- res:pass()
--- As req:pass(): what is left of the body goes on as it is, and nothing of it into Lua.
--- @where response_body
--- @example
---   function hooks.response_body(req, res)
---     if res.headers["content-type"] ~= "text/html" then return res:pass() end
---     for chunk in res:body() do res:write(chunk:upper()) end
---   end
function response_methods.pass(t) return pass(t, RESPONSE) end

--- res:prepend(text)
--- As req:prepend(text); res:append(text) as req:append(text).
--- @where response_body
--- @error after res:pass(); appended: for more than script_body_limit bytes together
--- @yields
--- @example
---   function hooks.response_body(req, res)
---     res:prepend("<!-- begin -->")
---     res:append("<!-- end -->")
---   end
function response_methods.prepend(t, text)
  write_chunk(t, RESPONSE, text)
  return pass(t, RESPONSE)
end
function response_methods.append(t, text) return append(t, RESPONSE, text) end

--- res:abort(status)
--- Gives the response up. When some of it is on its way already, the connection to the client is cut so that it
--- cannot look whole; else the client gets moongate's answer with that status, 400 to 599. A verdict: return what it
--- returns.
--- @where response_body
--- @example
---   function hooks.response_body(req, res)
---     for chunk in res:body() do
---       if chunk:find("BEGIN PRIVATE KEY", 1, true) then return res:abort(502) end
---       res:write(chunk)
---     end
---   end
function response_methods.abort(t, status) return abort(t, RESPONSE, status) end

-- ---- as a whole -------------------------------------------------------------------------------------------

local function read_whole(t, whose, limit)
  if limit ~= nil and (type(limit) ~= "number" or not (limit >= 0)) then wrong("read_body", "bytes", limit) end
  while true do
    local result = c_whole(t[1], whose, limit or -1, out)
    if result == OK then
      local text = ffi_string(out.at, out.len)
      return text
    end
    if result == NONE then return nil, "too large" end
    if result == CUT then return nil, "broken off" end
    if result ~= AGAIN then fail(result, "exchange") end
    yield(WAIT)
  end
end

local function replace(t, whose, text)
  text = text_of(text, "set_body")
  local result = c_replace(t[1], whose, text, #text)
  if result ~= OK then fail(result, "exchange") end
end

--- req:read_body(limit)
--- Waits until the whole body is there. The body stays where it is and is passed on as ever. A client that asks
--- first (Expect: 100-continue) is told to send it. While the hook waits, body_timeout, body_min_rate and max_body
--- hold for the client; a body that passes max_body is answered 413.
--- @where request; route until the request was sent
--- @return the body as a string, "" if there is none; nil and "too large" if it has more than `limit` bytes
--- (script_body_limit if left out), or says so: nothing is lost then, it can still be passed on
--- @error for a limit above script_body_limit
--- @yields
--- @example
---   function hooks.request(req)
---     local body, why = req:read_body(65536)
---     if not body then return req:respond(413, nil, why .. "\n") end
---     req.headers["x-body-sha256"] = gate.hex.encode(gate.sha256(body))
---   end
function request_methods.read_body(t, limit) return read_whole(t, REQUEST, limit) end

--- req:set_body(text)
--- Puts another body in the place of the client's, also where there was none ("" empties it). Its Content-Length is
--- written, digests of the old one go; Content-Type and Content-Encoding are the script's to set. What the
--- client still sends of its own is dropped. The request_body hook sees the new one, and so does another attempt
--- (retry_body).
--- @where request; route until the request was sent
--- @example
---   function hooks.request(req)
---     local body = req:read_body(65536)
---     if body then req:set_body((body:gsub("colour", "color"))) end
---   end
function request_methods.set_body(t, text) return replace(t, REQUEST, text) end

--- res:read_body(limit)
--- As req:read_body(limit), for the response of the upstream server; read_timeout holds for the server.
--- @where response
--- @return the body as a string; nil and "too large", or nil and "broken off" when the server's connection ended before
--- @error for a limit above script_body_limit
--- @yields
--- @example
---   local body, why = res:read_body(65536)
---   if body then res.headers["x-length"] = #body end
function response_methods.read_body(t, limit) return read_whole(t, RESPONSE, limit) end

--- res:set_body(text)
--- As req:set_body(text): puts another body in the place of the upstream server's, whose ETag becomes a weak one. The
--- connection to a server that has not sent all of its own is closed. The response_body hook sees the new one.
--- @where response
--- @error for a response that has no body (204, 304)
--- @example
---   if res.status == 404 then
---     res.headers["content-type"] = "text/plain"
---     res:set_body("nothing here\n")
---   end
function response_methods.set_body(t, text) return replace(t, RESPONSE, text) end
