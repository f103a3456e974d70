#!/usr/bin/env python3
"""How long `sextant advisor` takes to answer POST /advisor/v1/recommendations with many closed-loop users, all specs distinct.

    bench/front_end/advisor_load.py build/release/server/sextant [--users 50] [--requests 300]

Each user sends its next spec when the last was answered. Prints one line of JSON: latencies in seconds, of full-catalogue plans, and
the processor time that the server took for one. Python's standard library only.
"""

import argparse
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time

TASKS = ["interactive_chatbot", "rag", "code_generation", "document_summarization", "translation", "code_completion"]
PRIORITIES = ["balanced", "cost", "latency", "accuracy"]


def spec(i):
    """No two alike: the rate says which."""
    return {"task_type": TASKS[i % len(TASKS)], "priority": PRIORITIES[i % len(PRIORITIES)], "peak_rps": 5 + 1.37 * i,
            "prompt_length_avg": 200 + 3 * i, "generation_length_avg": 100 + i % 97}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_until_ready(port, server):
    while server.poll() is None:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/api/data/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.2)
    sys.exit("the advisor ended before it was ready")


def share(sorted_values, p):
    return sorted_values[min(len(sorted_values) - 1, max(0, -(-len(sorted_values) * p // 100) - 1))]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("program")
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--requests", type=int, default=300)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        environment = dict(os.environ, SEXTANT_KB=folder + "/kb.sqlite", SEXTANT_API_KEY="")
        server = subprocess.Popen([arguments.program, "advisor", "--port", str(port)], env=environment, stderr=subprocess.DEVNULL)
        try:
            wait_until_ready(port, server)
            busy = time.process_time
            ticks = os.sysconf("SC_CLK_TCK")

            def server_cpu():
                with open(f"/proc/{server.pid}/stat", encoding="ascii") as file:
                    fields = file.read().rsplit(")", 1)[1].split()
                return (int(fields[11]) + int(fields[12])) / ticks

            latencies, failures, lock, upcoming = [], [], threading.Lock(), iter(range(arguments.requests))

            def user():
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
                while True:
                    with lock:
                        i = next(upcoming, None)
                    if i is None:
                        return
                    body = json.dumps({"spec": spec(i)})
                    begun = time.monotonic()
                    connection.request("POST", "/advisor/v1/recommendations", body, {"Content-Type": "application/json"})
                    answer = connection.getresponse()
                    text = answer.read()
                    with lock:
                        latencies.append(time.monotonic() - begun)
                        if answer.status != 200 or json.loads(text)["schema"] != "sextant.plan/1":
                            failures.append(answer.status)

            before, own = server_cpu(), busy()
            begun = time.monotonic()
            users = [threading.Thread(target=user) for _ in range(arguments.users)]
            for each in users:
                each.start()
            for each in users:
                each.join()
            wall = time.monotonic() - begun
            cpu = server_cpu() - before
        finally:
            server.terminate()
            server.wait()
    latencies.sort()
    print(json.dumps({"users": arguments.users, "requests": len(latencies), "failures": len(failures), "p50_s": round(share(latencies, 50), 3),
                      "p90_s": round(share(latencies, 90), 3), "p99_s": round(share(latencies, 99), 3), "max_s": round(latencies[-1], 3),
                      "plans_per_s": round(len(latencies) / wall, 1), "server_cpu_s_per_plan": round(cpu / len(latencies), 4),
                      "client_cpu_s_per_plan": round((busy() - own) / len(latencies), 4), "cores_used": round(cpu / wall, 2)}))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
