#!/usr/bin/env python3
"""The proxy examples with the real proxies: WebSocket, HTTP and server-sent events through TLS, and
the client's address through X-Forwarded-For.

Runs each of nginx, haproxy and caddy that is installed, on free ports with a self-signed
certificate; says which is missing. EBBGATE_BIN is the program.
"""

import base64
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time

BIN = os.path.abspath(os.environ.get("EBBGATE_BIN", "build/ebbgate"))
PROXY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "common", "proxy")
NAME = "gate.example.org"
CLIENT = "127.0.0.7"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def check(ok, what):
    if not ok:
        raise AssertionError(what)


class Gate:
    def __init__(self, folder, trusted):
        self.data = os.path.join(folder, "data")
        args = [BIN, "serve", "--data", self.data, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0",
                "--agents", "echo", "--allowed-origins", f"https://{NAME}"]
        if trusted:
            args += ["--trusted-proxies", "127.0.0.1"]
        self.log = open(os.path.join(folder, "gate.log"), "w")
        self.process = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=self.log, text=True)
        words = self.process.stdout.readline().split()
        check(words[:2] == ["ebbgate", "ready"], "the gateway did not start")
        self.port = int(words[2].rsplit(":", 1)[1])
        self.admin = int(words[3].rsplit(":", 1)[1])

    def token(self, *args):
        out = subprocess.run([BIN, "token", "--data", self.data, *args], check=True, capture_output=True, text=True)
        return out.stdout.strip()

    def addresses(self):
        c = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=10)
        c.request("GET", "/api/v1/connections", headers={"Authorization": "Bearer " + self.token("--sub", "op", "--scope", "admin:read")})
        answer = json.loads(c.getresponse().read())
        c.close()
        return [item["address"] for item in next(v for v in answer.values() if isinstance(v, list))]

    def stop(self):
        self.process.terminate()
        self.process.wait(20)
        self.process.stdout.close()
        self.log.close()


class Client:
    """A WebSocket through TLS, from an address of its own that it also lies about."""

    def __init__(self, port, ca, origin, path="/ws"):
        context = ssl.create_default_context(cafile=ca)
        raw = socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(CLIENT, 0))
        self.socket = context.wrap_socket(raw, server_hostname=NAME)
        self.buffer = b""
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {NAME}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nOrigin: {origin}\r\n"
            f"X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n\r\n".encode())
        while b"\r\n\r\n" not in self.buffer:
            self._more()
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        self.status = int(head.split()[1])

    def _more(self):
        data = self.socket.recv(65536)
        check(data, "the connection ended")
        self.buffer += data

    def send(self, frame):
        text = json.dumps(frame).encode()
        mask = os.urandom(4)
        n = len(text)
        head = bytes([0x81, 0x80 | n]) if n < 126 else bytes([0x81, 0xFE]) + n.to_bytes(2, "big")
        self.socket.sendall(head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(text)))

    def receive(self):
        while True:
            if len(self.buffer) >= 2:
                n, at = self.buffer[1] & 127, 2
                if n == 126 and len(self.buffer) >= 4:
                    n, at = int.from_bytes(self.buffer[2:4], "big"), 4
                if n < 126 or at == 4:
                    if len(self.buffer) >= at + n:
                        first, text = self.buffer[0], self.buffer[at:at + n]
                        self.buffer = self.buffer[at + n:]
                        if first == 0x81:
                            return json.loads(text)
                        continue
            self._more()

    def close(self):
        self.socket.close()


def example(name, gate, port, cert, key, folder):
    """The example as it is shipped, with ports and certificate put in."""
    with open(os.path.join(PROXY, name)) as f:
        text = f.read()
    both = os.path.join(folder, "both.pem")
    with open(both, "w") as f:
        f.write(open(cert).read() + open(key).read())
    for old, new in (
            ("127.0.0.1:7070", f"127.0.0.1:{gate.port}"),
            ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
            ("/etc/ssl/certs/gate.example.org.pem", cert),
            ("/etc/ssl/private/gate.example.org.key", key),
            ("bind :443 ssl crt /etc/haproxy/certs/gate.example.org.pem", f"bind 127.0.0.1:{port} ssl crt {both}"),
            ("gate.example.org {", f"https://gate.example.org:{port} {{\n\tbind 127.0.0.1\n\ttls {cert} {key}")):
        text = text.replace(old, new)
    return text


def nginx(gate, port, cert, key, folder):
    with open(os.path.join(folder, "nginx.conf"), "w") as f:
        f.write(f"daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/proxy.log;\n"
                f"events {{}}\nhttp {{\n" + "".join(
                    f"{what}_temp_path {folder}/{what};\n" for what in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
                + example("nginx.conf", gate, port, cert, key, folder) + "}\n")
    return ["nginx", "-p", folder, "-e", f"{folder}/proxy.log", "-c", f"{folder}/nginx.conf"]


def haproxy(gate, port, cert, key, folder):
    path = os.path.join(folder, "haproxy.cfg")
    with open(path, "w") as f:
        f.write(example("haproxy.cfg", gate, port, cert, key, folder))
    return ["haproxy", "-db", "-f", path]


def caddy(gate, port, cert, key, folder):
    path = os.path.join(folder, "Caddyfile")
    with open(path, "w") as f:
        f.write(f"{{\n\tadmin off\n\tauto_https disable_redirects\n\tgrace_period 1s\n\tstorage file_system {folder}/caddy\n}}\n"
                + example("Caddyfile", gate, port, cert, key, folder))
    return ["caddy", "run", "--adapter", "caddyfile", "--config", path]


def listening(port, process):
    for _ in range(300):
        check(process.poll() is None, "the proxy ended")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("the proxy does not listen")


def https(port, ca, method, path, token, body=None):
    context = ssl.create_default_context(cafile=ca)
    raw = socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(CLIENT, 0))
    c = http.client.HTTPConnection(NAME, timeout=10)
    c.sock = context.wrap_socket(raw, server_hostname=NAME)
    headers = {"Authorization": "Bearer " + token}
    if body is not None:
        headers["Content-Type"] = "application/json"
    c.request(method, path, body, headers)
    return c, c.getresponse()


def through(make, trusted):
    folder = tempfile.mkdtemp(prefix="ebbgate-proxy-")
    cert, key = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                    "-keyout", key, "-out", cert, "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"],
                   check=True, capture_output=True)
    os.chmod(folder, 0o755)
    gate = Gate(folder, trusted)
    port = free_port()
    with open(os.path.join(folder, "out.log"), "w") as out:
        proxy = subprocess.Popen(make(gate, port, cert, key, folder), stdout=out, stderr=out,
                                 env={**os.environ, "HOME": folder})
    try:
        listening(port, proxy)
        token = gate.token("--sub", "alice", "--agents", "echo")
        for _ in range(100):  # haproxy looks at /ready before it sends anyone
            client = Client(port, cert, f"https://{NAME}")
            if client.status != 503:
                break
            client.close()
            time.sleep(0.1)
        check(client.status == 101, f"upgrade: {client.status}")
        client.send({"type": "hello", "agent_id": "echo", "token": token})
        hello = client.receive()
        check(hello["type"] == "hello_ok", hello)
        want = CLIENT if trusted else "127.0.0.1"
        check(gate.addresses() == [want], f"{gate.addresses()}, not {want}")
        client.send({"type": "message", "content": "x" * 3000, "message_id": "m1"})
        answer = client.receive()
        check(answer["status"] == "accepted" and answer["cursor"] == 1, answer)

        # Another page's origin is refused, also through the proxy.
        other = Client(port, cert, "https://elsewhere.example.org")
        other.send({"type": "hello", "agent_id": "echo", "token": token}) if other.status == 101 else None
        check(other.status == 403 or other.receive()["code"] == "origin_not_allowed", "a foreign origin was let in")
        other.close()

        # Server-sent events come as they happen.
        session = hello["session_id"]
        c, r = https(port, cert, "POST", f"/v1/sessions/{session}/messages", token, json.dumps({"content": "second"}))
        check(r.status == 202, r.status)
        c.close()
        context = ssl.create_default_context(cafile=cert)
        raw = socket.create_connection(("127.0.0.1", port), timeout=10)
        s = context.wrap_socket(raw, server_hostname=NAME)
        s.sendall(f"GET /v1/sessions/{session}/events?since=0 HTTP/1.1\r\nHost: {NAME}\r\nAccept: text/event-stream\r\n"
                  f"Authorization: Bearer {token}\r\n\r\n".encode())
        seen = b""
        while b"second" not in seen:
            data = s.recv(65536)
            check(data, "the stream ended")
            seen += data
        client.send({"type": "message", "content": "third while it streams"})
        while b"third while it streams" not in seen:
            data = s.recv(65536)
            check(data, "the stream ended")
            seen += data
        s.close()
        client.close()
    except BaseException:
        for name in ("out.log", "proxy.log", "gate.log"):
            if os.path.exists(os.path.join(folder, name)):
                sys.stderr.write(open(os.path.join(folder, name)).read()[-3000:])
        raise
    finally:
        proxy.terminate()
        proxy.wait(20)
        gate.stop()
        shutil.rmtree(folder, ignore_errors=True)


def main():
    for make in (nginx, haproxy, caddy):
        name = make.__name__
        if not shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin"):
            print(f"skipped: {name} is not installed")
            continue
        os.environ["PATH"] += ":/usr/sbin"
        through(make, True)
        through(make, False)
        print(f"ok: {name}: WebSocket, events and address through TLS")


if __name__ == "__main__":
    main()
