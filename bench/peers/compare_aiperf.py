#!/usr/bin/env python3
"""Does `sextant bench serve` agree with an independent client? NVIDIA's aiperf (PyPI) measures the same simulator.

    python3 -m venv VENV && VENV/bin/pip install aiperf==0.13.0
    VENV/bin/python bench/peers/compare_aiperf.py --sextant build/release/server/sextant --tokenizer DIRECTORY

DIRECTORY holds a tokenizer.json; nothing is fetched (HF_HUB_OFFLINE=1, and the directory laid out as a hub's cache, because aiperf
0.13.0 takes no path then). Each client runs --rounds times, turn and turn about, at
concurrency 1 and 16 against `sextant simulate` with constant times; printed are the medians of the runs' means and the difference in
percent. Exit code 1 when one exceeds --limit-pct. Definitions are converted: aiperf's inter_token_latency is (latency - TTFT) / (n - 1)
per request, which is our TPOT; its request_latency is our E2E. Not part of CI: takes minutes, and needs a machine that is otherwise idle.
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

OUTPUT_TOKENS = 32
INPUT_TOKENS = 32


def start_simulator(sextant, time_spec, folder):
    log = open(folder / "simulate.log", "w+", encoding="utf-8")
    process = subprocess.Popen([sextant, "simulate", "--time", time_spec, "--port", "0"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        match = re.search(r"ready at (http://\S+)", pathlib.Path(log.name).read_text())
        if match:
            return process, match.group(1)
        time.sleep(0.05)
    process.kill()
    sys.exit("the simulator did not start:\n" + pathlib.Path(log.name).read_text())


def run_ours(sextant, url, concurrency, num, folder):
    subprocess.run([sextant, "bench", "serve", "--url", url, "--num-prompts", str(num), "--max-concurrency", str(concurrency), "--quiet",
                    "--random-input-len", str(INPUT_TOKENS), "--random-output-len", str(OUTPUT_TOKENS), "--num-warmups", "4",
                    "--result-dir", str(folder), "--result-filename", "ours.json"], check=True, stdout=subprocess.DEVNULL)
    point = json.loads((folder / "ours.json").read_text())["points"][0]
    assert point["counts"]["finished"] == num
    return {"TTFT ms": point["latency_ms"]["ttft"]["mean"], "TPOT ms": point["latency_ms"]["tpot"]["mean"],
            "E2E ms": point["latency_ms"]["e2e"]["mean"], "requests/s": point["rates"]["request_rps"],
            "output tok/s": point["rates"]["output_tokens_per_s"]}


def run_aiperf(aiperf, url, concurrency, num, cache, folder):
    out = folder / f"aiperf-{time.monotonic_ns()}"
    command = [aiperf, "profile", "--model", "bytes", "--url", url, "--endpoint-type", "completions", "--streaming", "--concurrency",
               str(concurrency), "--request-count", str(num), "--warmup-request-count", "4", "--synthetic-input-tokens-mean",
               str(INPUT_TOKENS), "--synthetic-input-tokens-stddev", "0", "--output-tokens-mean", str(OUTPUT_TOKENS),
               "--output-tokens-stddev", "0", "--extra-inputs", "ignore_eos:true", "--extra-inputs", "temperature:0",
               "--use-server-token-count", "--tokenizer", "local/tokenizer", "--output-artifact-dir", str(out), "--ui", "none"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
                          env={**os.environ, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"})
    found = list(out.rglob("profile_export_aiperf.json"))
    if done.returncode != 0 or not found:
        sys.exit(f"aiperf failed ({done.returncode}):\n{done.stdout[-4000:]}")
    result = json.loads(found[0].read_text())

    def value(name):
        return result[name]["avg"]
    return {"TTFT ms": value("time_to_first_token"), "TPOT ms": value("inter_token_latency"), "E2E ms": value("request_latency"),
            "requests/s": value("request_throughput"), "output tok/s": value("output_token_throughput")}


def lay_out_cache(tokenizer, folder):
    """HF_HOME with the tokenizer as the cached repository local/tokenizer."""
    source = pathlib.Path(tokenizer)
    if not (source / "tokenizer.json").is_file():
        sys.exit(f"{source}/tokenizer.json does not exist: give a directory with one")
    repository = folder / "hf" / "hub" / "models--local--tokenizer"
    commit = "0" * 40
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    (snapshot / "tokenizer.json").write_bytes((source / "tokenizer.json").read_bytes())
    config = source / "tokenizer_config.json"
    (snapshot / "tokenizer_config.json").write_text(config.read_text() if config.is_file()
                                                    else json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    return folder / "hf"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sextant", required=True)
    parser.add_argument("--aiperf", default=str(pathlib.Path(sys.executable).parent / "aiperf"))
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--time", default="constant:ttft=200ms,tpot=50ms")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit-pct", type=float, default=2)
    arguments = parser.parse_args()
    worst = 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        cache = lay_out_cache(arguments.tokenizer, folder)
        simulator, url = start_simulator(arguments.sextant, arguments.time, folder)
        try:
            for concurrency, num in ((1, 8), (16, 96)):
                ours, theirs = [], []
                for _ in range(arguments.rounds):
                    ours.append(run_ours(arguments.sextant, url, concurrency, num, folder))
                    theirs.append(run_aiperf(arguments.aiperf, url, concurrency, num, cache, folder))
                print(f"concurrency {concurrency}, medians of {arguments.rounds} runs of {num} requests; load "
                      f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
                print(f"  {'':14}{'sextant':>12}{'aiperf':>12}{'difference':>12}")
                for metric in ours[0]:
                    a = statistics.median(run[metric] for run in ours)
                    b = statistics.median(run[metric] for run in theirs)
                    worst = max(worst, abs(a / b - 1) * 100)
                    print(f"  {metric:14}{a:12.3f}{b:12.3f}{(a / b - 1) * 100:+11.2f}%")
        finally:
            simulator.terminate()
            simulator.wait(30)
    print(f"largest difference {worst:.2f}%, limit {arguments.limit_pct:g}%")
    return 0 if worst <= arguments.limit_pct else 1


if __name__ == "__main__":
    sys.exit(main())
