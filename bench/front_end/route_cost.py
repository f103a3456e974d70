#!/usr/bin/env python3
"""What `sextant route` costs: the same requests straight to a simulated server and through a router, in turns, in one run.

  bench/front_end/route_cost.py --sextant build/release/server/sextant [--requests 4000] [--rounds 5]

Latency: one connection kept alive to each, one request at a time, the two in turns; time to the first byte of a stream and to the
end of a whole answer, at 0 ms of simulated time to the first token; what is added is the difference of the percentiles. Throughput:
`sextant bench serve` at a concurrency, in turns, medians of the rounds: output tokens per second through the router to those without.
The three programs share this machine's cores: on few cores that is what is measured.
"""

import argparse
import contextlib
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


@contextlib.contextmanager
def running(*command):
    with tempfile.NamedTemporaryFile(prefix="route-cost-", suffix=".log") as log:
        process = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 60
            while True:
                text = pathlib.Path(log.name).read_text()
                if found := re.search(r"ready at http://127\.0\.0\.1:(\d+)", text):
                    break
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"{command[1]} did not start:\n{text}")
                time.sleep(0.01)
            yield int(found.group(1)), process
        finally:
            process.terminate()
            process.wait()


class Connection:
    def __init__(self, port, stream):
        body = json.dumps({"model": "m", "prompt": "hello", "max_tokens": 2, "ignore_eos": True, "stream": stream}).encode()
        self.text = (f"POST /v1/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
                     f"Content-Length: {len(body)}\r\n\r\n").encode() + body
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = stream

    def ask(self):
        """Seconds to the first byte of a stream, or to the end of a whole answer."""
        begin = time.perf_counter()
        self.socket.sendall(self.text)
        answer = self.socket.recv(65536)
        first = time.perf_counter() - begin
        while not (answer.endswith(b"0\r\n\r\n") if self.stream else self.is_whole(answer)):
            piece = self.socket.recv(65536)
            if not piece:
                sys.exit("the connection was closed")
            answer += piece
        if not answer.startswith(b"HTTP/1.1 200"):
            sys.exit(answer.decode(errors="replace"))
        return first if self.stream else time.perf_counter() - begin

    @staticmethod
    def is_whole(answer):
        head, _, body = answer.partition(b"\r\n\r\n")
        return len(body) == int(re.search(rb"content-length: (\d+)", head, re.I).group(1))


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def cpu_seconds(process):
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def latency(direct_port, route_port, router, num_requests):
    for stream in (True, False):
        direct, route = Connection(direct_port, stream), Connection(route_port, stream)
        for _ in range(50):
            direct.ask()
            route.ask()
        times = ([], [])
        cpu = cpu_seconds(router)
        for _ in range(num_requests):
            times[0].append(direct.ask())
            times[1].append(route.ask())
        cpu = (cpu_seconds(router) - cpu) / num_requests
        line = ", ".join(f"p{round(share * 100)} {percentile(times[0], share) * 1e3:.3f} -> {percentile(times[1], share) * 1e3:.3f} ms "
                         f"({(percentile(times[1], share) - percentile(times[0], share)) * 1e3:+.3f})" for share in (0.5, 0.9, 0.99))
        print(f"{'first byte of a stream' if stream else 'whole answer':>24}: {line}; router {cpu * 1e6:.0f} us of CPU a request")


def throughput(sextant, direct_port, route_port, router, concurrency, rounds):
    rates = ([], [])
    cpu, tokens = cpu_seconds(router), 0
    for _ in range(rounds):
        for which, port in enumerate((direct_port, route_port)):
            run = subprocess.run([sextant, "bench", "serve", "--base-url", f"http://127.0.0.1:{port}", "--model", "m", "--max-concurrency",
                                  str(concurrency), "--num-prompts", str(concurrency * 8), "--random-input-len", "64",
                                  "--random-output-len", "64", "--ignore-eos", "--json"], capture_output=True, text=True, check=False)
            if run.returncode != 0:
                sys.exit(run.stderr)
            rates[which].append(json.loads(run.stdout)["points"][0]["rates"]["output_tokens_per_s"])
            tokens += concurrency * 8 * 64 * which
    cpu = cpu_seconds(router) - cpu
    direct, route = (statistics.median(values) for values in rates)
    print(f"{f'throughput at {concurrency}':>24}: {direct:,.0f} -> {route:,.0f} output tok/s, ratio {route / direct:.3f}; "
          f"router {cpu / tokens * 1e6:.1f} us of CPU a token")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sextant", default="build/release/server/sextant")
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--concurrency", type=int, nargs="*", default=[1, 16, 64])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        def pair(times):
            port, _ = stack.enter_context(running(arguments.sextant, "simulate", "--time", times, "--served-model-name", "m", "--port", "0",
                                                  "--max-num-seqs", "256"))
            path = pathlib.Path(folder) / f"pools-{port}.json"
            path.write_text(json.dumps({"pools": [{"model": "m", "members": [f"http://127.0.0.1:{port}"], "slow_start_s": 0}]}))
            route, process = stack.enter_context(running(arguments.sextant, "route", "--config", path, "--port", "0"))
            return port, route, process
        latency(*pair("constant:ttft=0.2ms,tpot=0.2ms"), arguments.requests)
        servers = pair("constant:ttft=20ms,tpot=5ms")
        for concurrency in arguments.concurrency:
            throughput(arguments.sextant, *servers, concurrency, arguments.rounds)


if __name__ == "__main__":
    main()
