# SPDX-License-Identifier: BSD-2-Clause
"""Forms in body hooks, as curl sends them: field by field while the body passes, unchanged, or is given up."""
import os
import re
import subprocess

import pytest

from conftest import eventually


def forms(moongate, address, text):
    return moongate(f"upstream app {{ server {address}; }}", "script a.lua; route / app; max_body 0;",
                    {"a.lua": f'local gate = require "moongate"\nlocal hooks = {{}}\n{text}\nreturn hooks\n'})


TOLD = """
function hooks.request_body(req)
  local form = req:form(%s)
  if not form then return req:pass() end
  for field in form:fields() do
    local size = 0
    for piece in field:data() do size = size + #piece end
    gate.log.warn("field", field.name, field.filename, field.type, size)
  end
  gate.log.warn("form ends", form.status, form.error)
end"""


def test_a_form_of_curl_is_told_and_passed_on_unchanged(moongate, origin, tmp_path):
    gate = forms(moongate, origin.address, TOLD % "")
    data = os.urandom(3000000)
    (tmp_path / "photo.png").write_bytes(data)
    subprocess.run(["curl", "-sSf", "-F", "title=a moon", "-F", f"photo=@{tmp_path}/photo.png;type=image/png",
                    "-F", "empty=", gate.url()], check=True, timeout=20)
    for said in ("field title nil text/plain 6", "field photo photo.png image/png 3000000", "field empty nil text/plain 0",
                 "form ends nil nil"):
        gate.wait_log(said)
    request, = origin.requests
    boundary = re.search(r"boundary=(\S+)", request.header("content-type"))[1].encode()
    assert request.body.count(b"--" + boundary) == 4 and request.body.endswith(b"--" + boundary + b"--\r\n")
    assert data in request.body


def test_an_urlencoded_form_of_curl_is_told_and_passed_on_unchanged(moongate, origin):
    gate = forms(moongate, origin.address, TOLD % "")
    subprocess.run(["curl", "-sSf", "--data-urlencode", "q=one & two=ü", "--data", "page=2", gate.url()], check=True,
                   timeout=20)
    gate.wait_log("field q nil nil 12")
    gate.wait_log("field page nil nil 1")
    assert origin.requests[0].body.replace(b"+", b"%20") == b"q=one%20%26%20two%3D%C3%BC&page=2"


@pytest.mark.parametrize("limits, body, status, why", [
    ("", b"no boundary", 400, "the form does not begin with its boundary"),
    ("", b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1', 400, "the form ends before its last boundary"),
    ("{ fields = 1 }", b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x\r\n'
     b'Content-Disposition: form-data; name="b"\r\n\r\n1\r\n--x--', 413, "the form has more than 1 fields"),
])
def test_a_form_that_is_refused_does_not_get_to_the_server(moongate, origin, limits, body, status, why):
    gate = forms(moongate, origin.address, TOLD % limits)
    got = gate.get(method="POST", body=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert got.status == status
    gate.wait_log(f"form ends {status} {why}")
    eventually(lambda: not origin.open)
    assert not origin.requests


def test_several_content_types_are_refused(moongate, origin):
    gate = forms(moongate, origin.address, TOLD % "")
    with gate.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Type: application/x-www-form-urlencoded\r\n"
                       b"Content-Type: text/plain\r\n\r\na=b")
        assert client.recv(1000).startswith(b"HTTP/1.1 400")
    assert not origin.requests


def test_a_hook_that_has_seen_enough_passes_the_rest(moongate, origin):
    gate = forms(moongate, origin.address, """
        function hooks.request_body(req)
          local form = req:form()
          for field in form:fields() do
            if field.name == "token" then
              gate.log.warn("token", field:read())
              return form:pass()
            end
          end
        end""")
    body = b"a=1&token=two&b=" + b"x" * 1000000 + b"&c=3"
    got = gate.get(method="POST", body=body, headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert got.status == 200 and origin.requests[0].body == body
    gate.wait_log("token two")


def test_a_body_that_is_no_form_is_the_hooks_to_decide_about(moongate, origin):
    gate = forms(moongate, origin.address, TOLD % "")
    gate.get(method="POST", body=b"a=1", headers={"Content-Type": "text/plain"})
    assert origin.requests[0].body == b"a=1" and origin.requests[0].header("content-length") == "3"
    assert "form ends" not in gate.log()
