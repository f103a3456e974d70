"""What the tests of `sextant bench` share: the mock server in a process of its own, and its trace as latencies."""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

import server_process

MOCK = server_process.ROOT / "tests" / "support" / "mock_openai_server.py"


class Mock:
    """The mock server for as long as a `with` block; .requests holds what its trace says once it has ended."""

    def __init__(self, *arguments):
        self.trace_file = tempfile.NamedTemporaryFile(prefix="sextant-mock-", suffix=".json")
        self.process = subprocess.Popen([sys.executable, str(MOCK), "--trace", self.trace_file.name, *map(str, arguments)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}"
        self.bodies, self.trace = [], []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def end(self):
        if self.process.stdin is None or self.process.stdin.closed:
            return
        self.process.stdin.close()
        try:
            self.process.wait(30)
        finally:
            if self.process.poll() is None:
                self.process.kill()
            self.process.stdout.close()
        text = pathlib.Path(self.trace_file.name).read_text()
        if text:
            document = json.loads(text)
            self.bodies, self.trace = document["bodies"], document["trace"]


def latencies_of(trace, skip=1):
    """{name: [ms per request]} from the server's own writes; the first `skip` requests (the client's check) are left out."""
    requests = {}
    for entry in trace:
        requests.setdefault(entry["id"], {"token": []})
        if entry["event"] == "token":
            requests[entry["id"]]["token"].append(entry["time_ns"])
        else:
            requests[entry["id"]][entry["event"]] = entry["time_ns"]
    result = {"ttft": [], "tpot": [], "e2e": []}
    begin, end = None, None
    for request_id, times in sorted(requests.items()):
        if request_id < skip or not times["token"]:
            continue
        ttft = (times["token"][0] - times["request"]) / 1e6
        e2e = (times["token"][-1] - times["request"]) / 1e6
        result["ttft"].append(ttft)
        result["e2e"].append(e2e)
        if len(times["token"]) > 1:
            result["tpot"].append((e2e - ttft) / (len(times["token"]) - 1))
        begin = times["request"] if begin is None else min(begin, times["request"])
        end = times["token"][-1] if end is None else max(end, times["token"][-1])
    result["seconds"] = (end - begin) / 1e9
    return result


def bench(*arguments, timeout=120, **options):
    """Runs `sextant bench serve`; .result is the JSON that it saved, or None."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "result.json"
        process = server_process.sextant("bench", "serve", *arguments, "--result-dir", folder, "--result-filename", "result.json",
                                         timeout=timeout, **options)
        process.result = json.loads(path.read_text()) if path.exists() else None
        return process


def point(process):
    assert process.result is not None, process.stderr
    return process.result["points"][0]


def mean(values):
    return statistics.fmean(values)


def simulator_latencies(path, skip=1):
    """The same from the trace file of `sextant simulate`: one row per answered completion, in the order of arrival."""
    requests = {}
    for line in pathlib.Path(path).read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "request":
            if event["path"].endswith("completions"):
                requests[event["id"]] = {"request": event["t_ns"], "first": None, "last": None, "tokens": 0}
        elif event["event"] == "write" and event["tokens"] and event["id"] in requests:
            times = requests[event["id"]]
            times["first"] = times["first"] or event["t_ns"]
            times["last"] = event["t_ns"]
            times["tokens"] += event["tokens"]
    rows = [times for times in requests.values() if times["first"]][skip:]
    return {"ttft": [(row["first"] - row["request"]) / 1e6 for row in rows],
            "e2e": [(row["last"] - row["request"]) / 1e6 for row in rows],
            "tpot": [(row["last"] - row["first"]) / 1e6 / (row["tokens"] - 1) for row in rows if row["tokens"] > 1],
            "tokens": sum(row["tokens"] for row in rows),
            "request_s": mean([row["request"] / 1e9 for row in rows]),
            "first_s": mean([row["first"] / 1e9 for row in rows]),
            "last_s": mean([row["last"] / 1e9 for row in rows]),
            "seconds": (max(row["last"] for row in rows) - min(row["request"] for row in rows)) / 1e9}
