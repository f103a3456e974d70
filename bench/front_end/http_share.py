#!/usr/bin/env python3
"""What HTTP costs: the same closed loop of requests through `sextant serve`, asked by `sextant bench serve`, and without it, by
raw_engine (same engine, no text, no HTTP), interleaved in each round.

    python3 bench/front_end/http_share.py --model MODEL.gguf                            concurrency 1, 8, 16, 64; 5 rounds
    python3 bench/front_end/http_share.py --model MODEL.gguf --concurrency 8 --rounds 9

One table: output tokens per second of both, the median of the rounds' ratios, the time to the first token of both and the median of the
differences, and the client's own share of a core, which it takes from the server: client, server and engine have the same cores here.
The load average before the run is printed; a machine with other work to do gives ratios that jump about. Exit codes: 0 done, 1 a run
failed, 2 bad arguments. Standard library only.
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

ROOT = pathlib.Path(__file__).resolve().parents[2]


def start_server(program, model):
    """The same settings as raw_engine's."""
    process = subprocess.Popen([program, "serve", model, "--port", "0", "--device", "cpu", "--max-model-len", "4608", "--max-num-seqs", "64",
                                "--no-enable-prefix-caching"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
    said = []
    for line in process.stdout:
        ready = re.search(r"ready at (http://[^\s,]+)", line)
        if ready:
            return process, ready.group(1)
        said.append(line)
    raise RuntimeError(f"sextant serve ended with {process.wait()}: {''.join(said)}")


class RawEngine:
    def __init__(self, program, model):
        self.process = subprocess.Popen([program, model], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.info = self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"raw_engine ended with {self.process.wait()}")
        return json.loads(line)

    def load(self, concurrency, length, tokens, count):
        self.process.stdin.write(f"load {concurrency} {length} {tokens} {count}\n")
        self.process.stdin.flush()
        result = self.answer()
        return {"rate": tokens * count / result["seconds"], "ttft_ms": result["ttft_s"] * 1e3}

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=60)


def over_http(args, url, concurrency, count, folder, seed):
    done = subprocess.run(
        [str(args.sextant), "bench", "serve", "--url", url, "--tokenizer", args.model, "--max-concurrency", str(concurrency), "--num-prompts",
         str(count), "--random-input-len", str(args.input_len), "--random-output-len", str(args.output_len), "--ignore-eos", "--quiet",
         "--skip-check", "--seed", str(seed), "--result-dir", folder, "--result-filename", "result.json"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"bench serve ended with {done.returncode}: {done.stderr.strip()}")
    result = json.loads(pathlib.Path(folder, "result.json").read_text(encoding="utf-8"))
    point = result["points"][0]
    if point["counts"]["finished"] != count:
        raise RuntimeError(f"{point['counts']} of {count} requests")
    ttfts = point["requests"]["ttft_ms"]
    return {"rate": point["rates"]["output_tokens_per_s"], "ttft_ms": sorted(ttfts)[len(ttfts) // 2],
            "client_pct": point["client"]["self_time_pct"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--concurrency", nargs="+", type=int, default=[1, 8, 16, 64])
    parser.add_argument("--input-len", type=int, default=128)
    parser.add_argument("--output-len", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build" / "release")
    args = parser.parse_args()
    if args.rounds < 1 or min(args.concurrency) < 1 or args.input_len < 1 or args.output_len < 2:
        parser.error("counts must be at least 1, --output-len at least 2")
    args.sextant, raw = args.build / "server/sextant", args.build / "bench/engine/raw_engine"
    for program in (args.sextant, raw):
        if not program.exists():
            parser.error(f"{program} is missing: ninja -C {args.build} sextant raw_engine")
    load = os.getloadavg()[0]
    server, url = start_server(str(args.sextant), args.model)
    measured = {concurrency: [] for concurrency in args.concurrency}
    try:
        engine = RawEngine(str(raw), args.model)
        with tempfile.TemporaryDirectory() as folder:
            engine.load(1, 32, 4, 1)
            over_http(args, url, 1, 1, folder, 0)
            for number in range(args.rounds):
                for concurrency in args.concurrency:
                    count = max(8, 2 * concurrency)
                    measured[concurrency].append((engine.load(concurrency, args.input_len, args.output_len, count),
                                                  over_http(args, url, concurrency, count, folder, number + 1)))
                print(f"round {number + 1} of {args.rounds}", file=sys.stderr)
        engine.close()
    finally:
        server.terminate()
        server.wait(60)
    print(f"{len(os.sched_getaffinity(0))} cores, load before {load:.2f}; {args.input_len} tokens in, {args.output_len} out; medians of "
          f"{args.rounds} rounds\n")
    print("| concurrency | raw tok/s | HTTP tok/s | HTTP / raw | raw TTFT ms | HTTP TTFT ms | difference | client's CPU |\n" + "|---" * 8 + "|")
    for concurrency, pairs in measured.items():
        def median(value, pairs=pairs):
            return statistics.median(value(raw, http) for raw, http in pairs)
        print(f"| {concurrency} | {median(lambda r, h: r['rate']):.1f} | {median(lambda r, h: h['rate']):.1f} | "
              f"{100 * median(lambda r, h: h['rate'] / r['rate']):.0f}% | {median(lambda r, h: r['ttft_ms']):.1f} | "
              f"{median(lambda r, h: h['ttft_ms']):.1f} | {median(lambda r, h: h['ttft_ms'] - r['ttft_ms']):+.1f} ms | "
              f"{median(lambda r, h: h['client_pct']):.0f}% |")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (RuntimeError, OSError, KeyError, subprocess.SubprocessError) as error:
        sys.exit(f"http_share.py: {error}")
