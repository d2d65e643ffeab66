# SPDX-License-Identifier: BSD-2-Clause
"""The origin and the proxies that are compared: their programs, configurations and versions.

Each proxy gets the same task: one worker on one core, keep-alive on both sides, no access log, its own
defaults else.  run starts and ends them.  To add one, write a class beside Haproxy and list it in PROXIES.
"""

import grp
import os
import pwd
import random
import re
import shutil
import socket
import subprocess

import procs

SMALL_BODY = b"moongate bench: a small body, as an API or a redirect would send it.\n"
SIZES = {"/64k": 64 << 10, "/10m": 10 << 20}
PORTS = range(20000, 32000)             # below the ports that the kernel gives to outgoing connections

# The same three steps everywhere: refuse by a header, tell the origin the client, hide the origin's name.
NGINX_HOOKS = """
        access_by_lua_block {
            if ngx.var.http_x_blocked then
                return ngx.exit(403)
            end
            ngx.req.set_header("X-Real-IP", ngx.var.remote_addr)
        }
        header_filter_by_lua_block {
            ngx.header["Server"] = nil
        }
"""
HAPROXY_HOOKS = """
core.register_action("request_hook", { "http-req" }, function(txn)
    if txn.sf:req_hdr("x-blocked") ~= "" then
        local reply = txn:reply { status = 403 }
        txn:done(reply)
    end
    txn.http:req_set_header("x-real-ip", txn.f:src())
end)
core.register_action("response_hook", { "http-res" }, function(txn)
    txn.http:res_del_header("server")
end)
"""
MOONGATE_HOOKS = """
local hooks = {}

function hooks.request(req)
  if req.headers["x-blocked"] then
    return req:respond(403, {}, "blocked\\n")
  end
  req.headers["x-real-ip"] = req.conn.remote_ip
end

function hooks.response(req, res)
  res.headers["server"] = nil
end

return hooks
"""


EMPTY_HOOKS = "return { request = function(req) end, response = function(req, res) end }\n"


class Missing(Exception):
    """The program is not there; the message says which and what brings it."""


def free_port():
    for port in random.sample(PORTS, 200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise RuntimeError(f"no free port between {PORTS.start} and {PORTS.stop}")


def find_program(name, package):
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not path:
        raise Missing(f"{name} is not installed (Debian package {package})")
    return path


def output_of(*argv):
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=10)
    return done.stdout


def write(path, text):
    with open(path, "w") as file:
        file.write(text)
    return path


def unprivileged():
    """(user, group) of the workers: an account that every system has when we are root, else (None, None)."""
    if os.geteuid() != 0:
        return None, None
    account = pwd.getpwnam("nobody")
    return account.pw_name, grp.getgrgid(account.pw_gid).gr_name


# What all three speak: their defaults differ.
CIPHERS = ("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
           "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305")


def certificate(folder):
    """The paths of a certificate, its key, and a file with both; made once."""
    pem, key, both = (os.path.join(folder, name) for name in ("site.pem", "site.key", "both.pem"))
    if not os.path.exists(both):
        subprocess.run([find_program("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=bench", "-days", "30", "-keyout", key,
                        "-out", pem], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        write(both, open(pem).read() + open(key).read())
    return pem, key, both


class Server:
    """What the origin and the proxies share: a folder, a port, and from start() to stop() a procs.Tree."""

    tls = None                          # the paths that certificate() gives, or none
    resumes = True                      # TLS sessions, by tickets
    h2 = False                          # HTTP/2 by prior knowledge

    def __init__(self, folder, core):
        self.folder = os.path.join(folder, self.name)
        os.makedirs(self.folder, exist_ok=True)
        self.core = core
        self.port = free_port()
        self.tree = None

    def path(self, name):
        return os.path.join(self.folder, name)

    def start(self):
        if os.path.exists(self.path("error.log")):
            os.remove(self.path("error.log"))             # of an earlier case
        self.tree = procs.Tree(self.command(), self.core, self.path("output.log"))

    def stop(self):
        if self.tree:
            self.tree.stop()
            self.tree = None

    def complaints(self, lines=12):
        """The end of what the program printed and logged, for the message of a failure."""
        text = ""
        for name in ("output.log", "error.log"):
            try:
                with open(self.path(name), errors="replace") as file:
                    text += file.read()
            except OSError:
                pass
        return "\n".join(text.splitlines()[-lines:])


class Nginx(Server):
    """Debian's nginx with its Lua module."""

    name = "nginx"

    def __init__(self, folder, core, origin_port=None, hooks=False):
        super().__init__(folder, core)
        self.program = find_program("nginx", "nginx-light")
        self.origin_port = origin_port
        self.hooks = hooks

    def modules(self):
        if not self.hooks:
            return ""
        folder = re.search(r"--modules-path=(\S+)", output_of(self.program, "-V"))
        folder = folder.group(1) if folder else "/usr/lib/nginx/modules"
        names = ("ndk_http_module.so", "ngx_http_lua_module.so")
        paths = [os.path.join(folder, name) for name in names]
        for path in paths:
            if not os.path.exists(path):
                raise Missing(f"{path} is not installed (Debian package libnginx-mod-http-lua)")
        return "".join(f"load_module {path};\n" for path in paths)

    def http_block(self):
        return f"""
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_max_temp_file_size 0;
    upstream origin {{
        server 127.0.0.1:{self.origin_port};
        keepalive 512;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{self.port} backlog=4096{" ssl" if self.tls else ""}{" http2" if self.h2 else ""};
        {self.tls_lines() if self.tls else ""}
        location / {{
            proxy_pass http://origin;
            {NGINX_HOOKS if self.hooks else ""}
        }}
    }}"""

    def tls_lines(self):
        return (f"ssl_certificate {self.tls[0]}; ssl_certificate_key {self.tls[1]}; ssl_protocols TLSv1.2 TLSv1.3; "
                f"ssl_ciphers {CIPHERS}; ssl_prefer_server_ciphers on; "
                f"ssl_session_tickets {'on' if self.resumes else 'off'};")

    def command(self):
        name, group = unprivileged()
        user = f"user {name} {group};" if name else ""
        temporary = "".join(f"    {kind}_temp_path {self.path(kind)};\n"
                            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        config = write(self.path("nginx.conf"), f"""
{self.modules()}{user}
worker_processes 1;
daemon off;
pid {self.path("nginx.pid")};
error_log {self.path("error.log")} warn;
events {{ worker_connections 4096; }}
http {{
{temporary}
    access_log off;
    default_type application/octet-stream;
    keepalive_timeout 300s;
    keepalive_requests 1000000000;
    {self.http_block()}
}}
""")
        return [self.program, "-p", self.folder, "-c", config]

    def version(self):
        return output_of(self.program, "-v").strip().replace("nginx version: ", "").replace("/", " ")


class Origin(Nginx):
    """Where every proxy gets its answers: an nginx without Lua on the load's core."""

    name = "origin"

    def __init__(self, folder, core):
        super().__init__(folder, core)
        for path, size in SIZES.items():
            with open(self.path(path[1:]), "wb") as file:
                file.write(random.Random(size).randbytes(size))

    def expected(self, path):
        if path in SIZES:
            with open(self.path(path[1:]), "rb") as file:
                return file.read()
        return SMALL_BODY

    def http_block(self):
        text = SMALL_BODY.decode().strip() + "\\n"
        return f"""
    sendfile on;
    open_file_cache max=16 inactive=1h;
    server {{
        listen 127.0.0.1:{self.port} backlog=4096;
        root {self.folder};
        location = /small {{ default_type text/plain; return 200 "{text}"; }}
        location = /client {{ default_type text/plain; return 200 "$http_x_real_ip"; }}
    }}"""


class Haproxy(Server):
    """Debian's HAProxy."""

    name = "haproxy"

    def __init__(self, folder, core, origin_port, hooks=False):
        super().__init__(folder, core)
        self.program = find_program("haproxy", "haproxy")
        self.origin_port = origin_port
        self.hooks = hooks

    def tls_words(self):
        return f"ssl crt {self.tls[2]} ciphers {CIPHERS} {'' if self.resumes else 'no-tls-tickets'}"

    def command(self):
        load = actions = user = ""
        if self.hooks:
            load = f"lua-load {write(self.path('hooks.lua'), HAPROXY_HOOKS)}"
            actions = "http-request lua.request_hook\n    http-response lua.response_hook"
        name, group = unprivileged()
        if name:
            user = f"user {name}\n    group {group}"
        config = write(self.path("haproxy.cfg"), f"""
global
    nbthread 1
    maxconn 4000
    {"" if self.resumes else "tune.ssl.cachesize 0"}
    {user}
    {load}
defaults
    mode http
    timeout connect 10s
    timeout client 300s
    timeout server 300s
    timeout http-keep-alive 300s
frontend bench
    bind 127.0.0.1:{self.port} backlog 4096 {self.tls_words() if self.tls else ""}{"proto h2" if self.h2 else ""}
    {actions}
    default_backend origin
backend origin
    http-reuse always
    server origin 127.0.0.1:{self.origin_port} pool-max-conn 512
""")
        return [self.program, "-db", "-f", config]

    def version(self):
        return re.sub(r"(HAProxy) version (\S+).*", r"\1 \2", output_of(self.program, "-v").splitlines()[0])


class Moongate(Server):
    """The moongate that was just built."""

    name = "moongate"
    built = None                        # the program's path, set by run

    def __init__(self, folder, core, origin_port, hooks=False):
        super().__init__(folder, core)
        if not self.built or not os.access(self.built, os.X_OK):
            raise Missing(f"{self.built or 'moongate'} is not built")
        self.program = os.path.abspath(self.built)
        self.origin_port = origin_port
        self.hooks = EMPTY_HOOKS if hooks == "empty" else MOONGATE_HOOKS if hooks else None

    def command(self):
        name, _ = unprivileged()
        user = f"user {name};" if name else ""
        script = ""
        tls = ";"
        if self.tls:
            tls = (f"tls {{ certificate {self.tls[0]}; key {self.tls[1]}; "
                   f"session_tickets {'on' if self.resumes else 'off'}; }}")
        if self.hooks:
            write(self.path("hooks.lua"), self.hooks)
            script = "script hooks.lua;"
        config = write(self.path("moongate.conf"), f"""
workers 1;
{user}
control {self.path("control.sock")};
error_log {self.path("error.log")} warn;
scripts {self.folder};

upstream origin {{
    server 127.0.0.1:{self.origin_port};
    keepalive 512 idle=60s;
}}

frontend bench {{
    listen 127.0.0.1:{self.port} {tls}
    {script}
    route / origin;
    access_log off;
    {"keepalive_requests 0;" if self.h2 else ""}
}}
""")
        return [self.program, "-c", config]

    def version(self):
        lines = output_of(self.program, "-V").splitlines()
        return lines[0].strip() if lines else "moongate"


class Plain(Moongate):
    """The same without any hook: what a case of hooks alone is measured against."""

    name = "plain"

    def __init__(self, folder, core, origin_port, hooks=False):
        super().__init__(folder, core, origin_port)


PROXIES = {proxy.name: proxy for proxy in (Moongate, Nginx, Haproxy)}
