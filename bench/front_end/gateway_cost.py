#!/usr/bin/env python3
"""What the gateway costs: processor time of the server per request on a kept connection, with everything on (keys or signed tokens,
limits, usage, audit log) and with everything off, in turns, in one run; of a token (JWT) that was not seen before; and, with a model,
the rate of tokens with everything on against everything off.

  bench/front_end/gateway_cost.py --sextant build/release/server/sextant [--rounds 7] [--requests 2000] [--new-tokens 100]
  bench/front_end/gateway_cost.py --sextant build/release/server/sextant --model MODEL.gguf [--pairs 15] [--concurrency 8]

Processor time is that of all of the server's threads (/proc/PID/task/*/schedstat, nanoseconds; audit and usage writers included), so
the client's share does not count. A request is GET /v1/models: it passes the whole gateway (key, role, limits, audit record) and does
next to no work behind it. `request_*_us` is all of a request, HTTP too, `gateway_*_us` what it costs above one with everything off;
`first_*_us` what a token costs more when it is new (HS256, RS256 with 2048 bits, ES256). Medians of the rounds, their least and largest.

With --model the same closed loop of streamed completions goes to two servers in turns, first one then the other first; `kept` is the
median of the pairs' ratios of tokens per second, `cpu` that of the processor time of the same work, both on / off. Both servers have the
same machine, where the client runs too. Python's standard library and openssl alone; exit codes: 0 done, 1 a run failed.
"""

import argparse
import base64
import concurrent.futures
import contextlib
import hashlib
import hmac
import json
import os
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time

SECRET = b"a shared secret of thirty-two by"
NO_LIMITS = ["requests_per_s=1000000", "request_burst=1000000", "tokens_per_minute=1000000000", "tokens_per_day=100000000000",
             "concurrent_requests=1000", "max_tokens=4096"]


def part(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def openssl(*arguments, data=None):
    return subprocess.run(["openssl", *arguments], input=data, check=True, capture_output=True).stdout


class Signer:
    """Signed tokens by three kinds of keys, and the JWK set that they are checked with."""
    def __init__(self, folder):
        self.files = {"RS256": str(folder / "rsa.key"), "ES256": str(folder / "ec.key")}
        openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", self.files["RS256"])
        openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", self.files["ES256"])
        modulus = bytes.fromhex(openssl("rsa", "-in", self.files["RS256"], "-noout", "-modulus").decode().strip().split("=")[1])
        point = openssl("pkey", "-in", self.files["ES256"], "-pubout", "-outform", "DER")[-64:]  # x and y end it
        keys = [{"kty": "oct", "kid": "HS256", "alg": "HS256", "k": part(SECRET).decode()},
                {"kty": "RSA", "kid": "RS256", "alg": "RS256", "n": part(modulus).decode(), "e": "AQAB"},
                {"kty": "EC", "kid": "ES256", "alg": "ES256", "crv": "P-256", "x": part(point[:32]).decode(), "y": part(point[32:]).decode()}]
        self.jwks = folder / "jwks.json"
        self.jwks.write_text(json.dumps({"keys": keys}))
        self.count = 0

    def token(self, algorithm):
        self.count += 1
        claims = {"iss": "bench", "aud": "sextant", "exp": int(time.time()) + 36000, "sub": f"user-{self.count}", "tenant": "shop",
                  "roles": ["inference"]}
        signed = part(json.dumps({"alg": algorithm, "kid": algorithm}).encode()) + b"." + part(json.dumps(claims).encode())
        if algorithm == "HS256":
            return (signed + b"." + part(hmac.new(SECRET, signed, hashlib.sha256).digest())).decode()
        signature = openssl("dgst", "-sha256", "-sign", self.files[algorithm], data=signed)
        if algorithm == "ES256":  # DER: two integers, each with its length; JWS wants 32 bytes of each
            r_size = signature[3]
            r, s = signature[4:4 + r_size], signature[6 + r_size:]
            signature = b"".join(number.lstrip(b"\0").rjust(32, b"\0") for number in (r, s))
        return (signed + b"." + part(signature)).decode()


class Server:
    def __init__(self, program, *arguments):
        self.log = tempfile.NamedTemporaryFile(prefix="gateway-cost-", suffix=".log")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SEXTANT_")}
        self.process = subprocess.Popen([program, *map(str, arguments), "--port", "0"], stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=self.log, env=environment)
        deadline = time.monotonic() + 120
        while not (found := re.search(r"ready at http://127\.0\.0\.1:(\d+)", pathlib.Path(self.log.name).read_text())):
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

    def connect(self):
        connection = socket.create_connection(("127.0.0.1", self.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


def request_for(key):
    secret = f"Authorization: Bearer {key}\r\n" if key else ""
    return f"GET /v1/models HTTP/1.1\r\nHost: bench\r\n{secret}\r\n".encode()


def ask(connection, request):
    connection.sendall(request)
    answer = connection.recv(65536)
    if not answer.startswith(b"HTTP/1.1 200"):
        sys.exit(f"refused: {answer[:400]!r}")


def requests(server, all_of_them):
    """Microseconds per request; each of them once, on one connection, which was used before."""
    with server.connect() as connection:
        ask(connection, all_of_them[0])
        begin = server.cpu_us()
        for request in all_of_them:
            ask(connection, request)
        return (server.cpu_us() - begin) / len(all_of_them)


def stream(server, key, prompt, max_tokens):
    """Tokens that came, of which each is one event."""
    body = json.dumps({"prompt": prompt, "max_tokens": max_tokens, "ignore_eos": True, "temperature": 0, "stream": True}).encode()
    secret = f"Authorization: Bearer {key}\r\n" if key else ""
    with server.connect() as connection:
        connection.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: bench\r\n{secret}Content-Type: application/json\r\n"
                           f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = b""
        while not answer.endswith(b"0\r\n\r\n"):
            piece = connection.recv(65536)
            if not piece:
                sys.exit(f"the stream was cut: {answer[:400]!r}")
            answer += piece
    if b"data: [DONE]" not in answer:
        sys.exit(f"refused: {answer[:400]!r}")
    return max_tokens


def rate(server, key, prompts, max_tokens, concurrency):
    """Tokens per second and processor seconds of one closed loop."""
    cpu, begin = server.cpu_us(), time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(concurrency) as pool:
        tokens = sum(pool.map(lambda prompt: stream(server, key, prompt, max_tokens), prompts))
    return tokens / (time.monotonic() - begin), (server.cpu_us() - cpu) / 1e6


def summary(values, digits=1):
    return {"median": round(statistics.median(values), digits), "min": round(min(values), digits), "max": round(max(values), digits)}


def with_everything(program, folder, signer):
    """The flags, and a key."""
    state = str(folder / "state")
    limits = [flag for limit in NO_LIMITS for flag in ("--limit", limit)]
    run = subprocess.run([program, "admin", "keys", "create", "--tenant", "shop", "--state-dir", state, *limits], check=True,
                         capture_output=True, text=True)
    subprocess.run([program, "admin", "tenants", "set", "shop", "--state-dir", state, *limits], check=True, capture_output=True)
    return ["--state-dir", state, "--audit-log", folder / "audit", "--jwks", signer.jwks, "--jwt-audience", "sextant", "--jwt-issuer",
            "bench"], run.stdout.strip()


def requests_main(o, folder, stack):
    signer = Signer(folder)
    flags, key = with_everything(o.sextant, folder, signer)
    quick = ["simulate", "--time", "constant:ttft=0ms,tpot=0ms"]
    on, off = Server(o.sextant, *quick, *flags), Server(o.sextant, *quick)
    for server in (on, off):
        stack.callback(server.stop)
    seen = {"key": request_for(key), **{name: request_for(signer.token(name)) for name in signer.files}}
    with on.connect() as connection:
        for request in seen.values():
            ask(connection, request)  # each token is seen here
    found = {}

    def note(name, value):
        found.setdefault(name, []).append(value)
        return value
    for server, request in ((on, seen["key"]), (off, request_for(""))):
        requests(server, [request] * 500)
    for _ in range(o.rounds):
        nothing = note("request_off_us", requests(off, [request_for("")] * o.requests))
        for name, request in seen.items():
            note(f"gateway_{name}_us", note(f"request_{name}_us", requests(on, [request] * o.requests)) - nothing)
        for name in ("HS256", "RS256", "ES256"):
            fresh = [request_for(signer.token(name)) for _ in range(o.new_tokens)]
            note(f"first_{name}_us", requests(on, fresh) - found["request_key_us"][-1])
    return {name: summary(values) for name, values in sorted(found.items())}


def tokens_main(o, folder, stack):
    flags, key = with_everything(o.sextant, folder, Signer(folder))
    serve = ["serve", o.model, "--device", "cpu", "--max-num-seqs", o.concurrency, "--no-enable-prefix-caching"]
    on, off = Server(o.sextant, *serve, *flags), Server(o.sextant, *serve)
    for server in (on, off):
        stack.callback(server.stop)
    prompts = ["The history of the city begins with a bridge, and " * 6] * (2 * o.concurrency)
    rates, cpus, kept, cpu_ratios = {}, {}, [], []
    for pair in range(-1, o.pairs):  # the first one warms up
        order = [("on", on, key), ("off", off, "")]
        for name, server, secret in order if pair % 2 else reversed(order):
            rates[name], cpus[name] = rate(server, secret, prompts, o.tokens, o.concurrency)
        if pair >= 0:
            kept.append(rates["on"] / rates["off"])
            cpu_ratios.append(cpus["on"] / cpus["off"])
    return {"pairs": o.pairs, "tokens_per_run": len(prompts) * o.tokens, "kept": summary(kept, 4), "cpu": summary(cpu_ratios, 4)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--sextant", required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--new-tokens", type=int, default=100)
    parser.add_argument("--model")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    o = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gateway-cost-") as name, contextlib.ExitStack() as stack:
        found = (tokens_main if o.model else requests_main)(o, pathlib.Path(name), stack)
    print(json.dumps({"load_average": round(os.getloadavg()[0], 2), **found}, indent=2))


if __name__ == "__main__":
    main()
