#!/usr/bin/env python3
"""What TLS in the process costs: processor time of `sextant simulate` per handshake, per request on a kept connection and per
streamed token, with TLS and without, in turns, in one run.

  bench/front_end/tls_cost.py --sextant build/release/server/sextant [--rounds 5] [--handshakes 400] [--requests 2000] [--tokens 4000]

Processor time is that of all of the server's threads (/proc/PID/task/*/schedstat, nanoseconds), so the client's share does not count;
medians of the rounds, and their least and largest. A handshake's cost is a connection with TLS less one without, each with one
request. Certificates: ECDSA P-256 and RSA 2048, made by the openssl command. Python's standard library and openssl alone.
"""

import argparse
import contextlib
import json
import pathlib
import re
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time

GET = b"GET /health HTTP/1.1\r\nHost: bench\r\n\r\n"


def make_certificate(folder, name, *key):
    files = [str(folder / f"{name}.{end}") for end in ("pem", "key")]
    subprocess.run(["openssl", "req", "-x509", "-newkey", *key, "-nodes", "-subj", "/CN=localhost", "-days", "2",
                    "-addext", "subjectAltName=IP:127.0.0.1", "-out", files[0], "-keyout", files[1]], check=True, capture_output=True)
    return files


class Server:
    def __init__(self, program, certificate=None):
        self.log = tempfile.NamedTemporaryFile(prefix="tls-cost-", suffix=".log")
        flags = ["--ssl-certfile", certificate[0], "--ssl-keyfile", certificate[1]] if certificate else []
        self.process = subprocess.Popen([program, "simulate", "--port", "0", "--time", "constant:ttft=0ms,tpot=1ms", "--max-model-len", "16384",
                                         *flags], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        self.context = ssl.create_default_context(cafile=certificate[0]) if certificate else None
        deadline = time.monotonic() + 60
        while not (found := re.search(r"ready at https?://127\.0\.0\.1:(\d+)", pathlib.Path(self.log.name).read_text())):
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit("the server did not start:\n" + pathlib.Path(self.log.name).read_text())
            time.sleep(0.01)
        self.port = int(found.group(1))

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def cpu_us(self):
        total = 0
        for path in pathlib.Path(f"/proc/{self.process.pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                total += int(path.read_text().split()[0])
        return total / 1e3

    def connect(self, session=None):
        connection = socket.create_connection(("127.0.0.1", self.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.context.wrap_socket(connection, server_hostname="127.0.0.1", session=session) if self.context else connection


def ask(connection):
    connection.sendall(GET)
    assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def connections(server, count, resumes=False):
    """Microseconds per connection with one request."""
    session = None
    if resumes:
        with server.connect() as first:
            ask(first)
            session = first.session
    begin = server.cpu_us()
    for _ in range(count):
        with server.connect(session) as connection:
            ask(connection)
            if resumes:
                assert connection.session_reused
    return (server.cpu_us() - begin) / count


def requests(server, count):
    with server.connect() as connection:
        ask(connection)
        begin = server.cpu_us()
        for _ in range(count):
            ask(connection)
        return (server.cpu_us() - begin) / count


def tokens(server, count):
    """Microseconds per token, the engine's share of the simulator included."""
    body = json.dumps({"prompt": "x", "max_tokens": count, "ignore_eos": True, "stream": True}).encode()
    with server.connect() as connection:
        begin = server.cpu_us()
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
                           b"Content-Length: %d\r\n\r\n" % len(body) + body)
        tail = b""
        while not tail.endswith(b"0\r\n\r\n"):
            piece = connection.recv(65536)
            assert piece, "the stream was cut"
            tail = (tail + piece)[-16:]
        return (server.cpu_us() - begin) / count


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--sextant", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--handshakes", type=int, default=400)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--tokens", type=int, default=4000)
    o = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory(prefix="tls-cost-") as name, contextlib.ExitStack() as stack:
        folder = pathlib.Path(name)
        servers = {"plain": Server(o.sextant),
                   "ecdsa": Server(o.sextant, make_certificate(folder, "ecdsa", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")),
                   "rsa": Server(o.sextant, make_certificate(folder, "rsa", "rsa:2048"))}
        for server in servers.values():
            stack.callback(server.stop)
            connections(server, 50)  # what is made once
            requests(server, 200)
        for _ in range(o.rounds):
            plain = connections(servers["plain"], o.handshakes)
            for key in ("ecdsa", "rsa"):
                found.setdefault(f"handshake_{key}_us", []).append(connections(servers[key], o.handshakes) - plain)
            found.setdefault("handshake_resumed_us", []).append(connections(servers["ecdsa"], o.handshakes, resumes=True) - plain)
            for key in ("plain", "ecdsa"):
                shown = "tls" if key == "ecdsa" else key
                found.setdefault(f"request_{shown}_us", []).append(requests(servers[key], o.requests))
                found.setdefault(f"token_{shown}_us", []).append(tokens(servers[key], o.tokens))
    print(json.dumps({name: {"median": round(statistics.median(values), 1), "min": round(min(values), 1), "max": round(max(values), 1)}
                      for name, values in sorted(found.items())}, indent=2))


if __name__ == "__main__":
    main()
