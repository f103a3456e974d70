"""Does `sextant bench serve` measure what the server did? Runs it against `sextant simulate` at constant times and holds its TTFT,
TPOT, E2E and rates against the simulator's trace of socket writes.

  python3 bench/front_end/trace_agreement.py --sextant build/release/server/sextant [--streams 1,100,1000] [--json]

The jitter spreads the streams: without it a thousand requests are sent at one instant, and what the client then measures holds
the time in which the server reads the last of them (`--time constant:ttft=200ms,tpot=50ms --rounds 1` shows it).

Exit code 1 when a mean differs by more than --tolerance (1%). A measurement: on a machine that is busy with other things the
client is late, and so are its figures. Standard library only.
"""

import argparse
import collections
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time


def start_simulator(program, time_spec, trace):
    process = subprocess.Popen([program, "simulate", "--port", "0", "--time", time_spec, "--trace-file", trace,
                                "--max-connections", "20000"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in process.stdout:
        ready = re.search(r"ready at (http://\S+)", line)
        if ready:
            return process, ready.group(1)
    raise SystemExit(f"{program} simulate ended with {process.wait()}")


def truth_of(trace):
    """Means over the requests that made more than one token, and the span of all."""
    requests = collections.OrderedDict()
    for line in pathlib.Path(trace).read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "request":
            if event["path"] == "/v1/completions":
                requests[event["id"]] = {"start": event["t_ns"], "writes": []}
        elif event["event"] == "write" and event["id"] in requests and event["tokens"]:
            requests[event["id"]]["writes"].append((event["t_ns"], event["tokens"]))
    return [request for request in requests.values() if sum(tokens for _, tokens in request["writes"]) > 1]


def means(requests):
    count = len(requests)
    ttft = sum(r["writes"][0][0] - r["start"] for r in requests) / count
    e2e = sum(r["writes"][-1][0] - r["start"] for r in requests) / count
    tpot = sum((r["writes"][-1][0] - r["writes"][0][0]) / (sum(t for _, t in r["writes"]) - 1) for r in requests) / count
    span = max(r["writes"][-1][0] for r in requests) - min(r["start"] for r in requests)
    tokens = sum(t for r in requests for _, t in r["writes"])
    return {"ttft_ms": ttft / 1e6, "tpot_ms": tpot / 1e6, "e2e_ms": e2e / 1e6, "request_rps": count / span * 1e9,
            "output_tokens_per_s": tokens / span * 1e9}


def measure(program, streams, arguments):
    with tempfile.TemporaryDirectory() as folder:
        trace, record = f"{folder}/trace.jsonl", f"{folder}/record.jsonl"
        simulator, url = start_simulator(program, arguments.time, trace)
        try:
            begin = time.monotonic_ns()
            ended = subprocess.run(
                [program, "bench", "serve", "--base-url", url, "--model", "bytes", "--max-concurrency", str(streams),
                 "--num-prompts", str(streams * arguments.rounds), "--input-len", "32", "--output-len", str(arguments.tokens),
                 "--ignore-eos", "--skip-check", "--quiet", "--simulated", "--record", record],
                capture_output=True, text=True, check=False)
            if ended.returncode != 0:
                raise SystemExit(f"bench serve ended with {ended.returncode}: {ended.stderr}{ended.stdout}")
        finally:
            simulator.terminate()
            simulator.wait()
        requests = [r for r in truth_of(trace) if r["start"] >= begin]
        metrics = json.loads(pathlib.Path(record).read_text().splitlines()[-1])["metrics"]
    if len(requests) != streams * arguments.rounds:
        raise SystemExit(f"{len(requests)} requests in the trace, {streams * arguments.rounds} were sent")
    truth = means(requests)
    measured = {name: metrics[name]["mean"] if isinstance(metrics[name], dict) else metrics[name] for name in truth}
    return {"streams": streams, "truth": truth, "measured": measured,
            "difference_pct": {name: (measured[name] / truth[name] - 1) * 100 for name in truth}}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sextant", required=True)
    parser.add_argument("--streams", default="1,100,1000")
    parser.add_argument("--time", default="constant:ttft=200ms,tpot=50ms,jitter=30%")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=4, help="requests per stream")
    parser.add_argument("--tolerance", type=float, default=1.0, help="percent")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    agrees = True
    for streams in map(int, arguments.streams.split(",")):
        result = measure(arguments.sextant, streams, arguments)
        if arguments.json:
            print(json.dumps(result), flush=True)
        else:
            print(f"{streams} streams")
            for name, percent in result["difference_pct"].items():
                print(f"  {name:22} truth {result['truth'][name]:12.3f}  measured {result['measured'][name]:12.3f}  {percent:+.2f}%",
                      flush=True)
        agrees &= all(abs(percent) <= arguments.tolerance for percent in result["difference_pct"].values())
    return 0 if agrees else 1


if __name__ == "__main__":
    sys.exit(main())
