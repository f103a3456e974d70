#!/usr/bin/env python3
"""Runs this engine and its peers on one GGUF file, interleaved in one run, and prints medians and ratios.

Each engine is a process that answers cases from stdin ("prefill N LENGTH", "decode N CONTEXT TOKENS") with seconds, as JSON
lines; in each round every engine does every case once, so that what else the machine does meets all alike. bench_stream measures
in each round how fast all threads read memory.

    bench/peers/compare.py --model MODEL.gguf                    install the peers into build/peers, run 5 rounds
    bench/peers/compare.py --model MODEL.gguf --rounds 9 --out bench/results/peers_NAME.md
    bench/peers/compare.py --model MODEL.gguf --peers openvino --cases "decode 1 128 64"

The peers come from PyPI at the versions below; llama-cpp-python is compiled for this machine (minutes). Without --out the table
goes to stdout only. Exit codes: 0 done, 1 an engine failed, 2 bad arguments.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = {"openvino": ["openvino-genai==2026.4.1"], "llama.cpp": ["llama-cpp-python==0.3.36"]}
CASES = ["prefill 8 128", "prefill 1 4096", "decode 1 128 64", "decode 8 128 64", "decode 32 128 32"]


def install(folder, peers):
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    packages = [package for peer in peers for package in PACKAGES[peer]]
    environment = {**os.environ, "CMAKE_ARGS": "-DGGML_NATIVE=ON", "CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count())}
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--no-input", "numpy", *packages], check=True,
                   env=environment)
    return python


def commands(args, python, threads):
    here = pathlib.Path(__file__).resolve().parent
    all_commands = {"sextant": [str(args.build / "bench/engine/raw_engine"), args.model]}
    if "openvino" in args.peers:
        all_commands["openvino"] = [str(python), str(here / "openvino_worker.py"), args.model]
        if args.f32:
            all_commands["openvino f32"] = [*all_commands["openvino"], "f32"]
    if "llama.cpp" in args.peers:
        all_commands["llama.cpp"] = [str(python), str(here / "llama_cpp_worker.py"), args.model, str(threads)]
    return all_commands


class Engine:
    def __init__(self, name, command):
        self.name = name
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.info = self.answer()

    def answer(self):
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(f"{self.name} ended with exit status {self.process.wait()}")

    def ask(self, case):
        self.process.stdin.write(case + "\n")
        self.process.stdin.flush()
        return self.answer()

    def run(self, case):
        return self.ask(case)["seconds"]

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=60)


def tokens_of(case):
    verb, count, length, *_ = case.split()
    return int(count) * (int(length) if verb == "prefill" else 1)


def cpu_name():
    for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith(("model name", "Hardware")):
            return line.split(":", 1)[1].strip()
    return "unknown CPU"


def table(args, engines, rates, stream, stream_medians, threads):
    names = [engine.name for engine in engines]
    weight_bytes = engines[0].info["weight_bytes"]
    roof = statistics.median(stream)
    lines = [f"# {cpu_name()}, {threads} threads, {time.strftime('%Y-%m-%d', time.gmtime())}", "",
             f"`{pathlib.Path(args.model).name}`; medians of {args.rounds} rounds, tok/s (best in brackets). "
             f"Printed by `bench/peers/compare.py`.", "",
             "; ".join(f"{engine.name}: " + ", ".join(f"{key} {value:.2f}" if isinstance(value, float) else f"{key} {value}"
                                                      for key, value in engine.info.items()) for engine in engines) + ".",
             "", "| case | " + " | ".join(names) + " | ours / the better peer |", "|---" * (len(names) + 2) + "|"]
    for case in args.cases:
        medians = [statistics.median(rates[name, case]) for name in names]
        cells = [f"{median:,.1f} ({max(rates[name, case]):,.1f})" for name, median in zip(names, medians)]
        ratio = f"{medians[0] / max(medians[1:]):.2f}" if len(medians) > 1 else "-"
        lines.append(f"| {case} | " + " | ".join(cells) + f" | {ratio} |")
    lines += ["", f"Memory read by all threads (`bench_stream`, {weight_bytes >> 20} MiB, best of 9 per round): median "
                  f"{roof:.1f} GB/s, from {min(stream):.1f} to {max(stream):.1f}; the median of 9 per round: "
                  f"{statistics.median(stream_medians):.1f} GB/s."]
    for case in args.cases:
        if case.startswith("decode 1 "):
            rate = statistics.median(rates["sextant", case]) * weight_bytes * 1e-9
            best = max(rates["sextant", case]) * weight_bytes * 1e-9
            of_median = 100 * rate / statistics.median(stream_medians)
            lines.append(f"Weights read at {case}: {rate:.1f} GB/s, {100 * rate / roof:.0f}% of the first, {of_median:.0f}% of the second "
                         f"(best round: {best:.1f} GB/s, {100 * best / max(stream):.0f}% of the best).")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a GGUF file that all engines read")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", nargs="*", default=list(PACKAGES), choices=list(PACKAGES))
    parser.add_argument("--cases", nargs="+", default=CASES)
    parser.add_argument("--f32", action="store_true", help="OpenVINO once more, forced to f32")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build" / "release")
    parser.add_argument("--venv", type=pathlib.Path, default=ROOT / "build" / "peers")
    parser.add_argument("--out", type=pathlib.Path, help="write the table here too")
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error("--rounds must be at least 1")
    if not pathlib.Path(args.model).is_file():
        parser.error(f"there is no file {args.model}; deploy/fetch-default-model.sh prints where the default model lies")
    for program in ("bench/engine/raw_engine", "bench/kernels/bench_stream"):
        if not (args.build / program).exists():
            parser.error(f"{args.build / program} is missing: ninja -C {args.build} raw_engine bench_stream")
    threads = len(os.sched_getaffinity(0))
    python = install(args.venv, args.peers) if args.peers else None
    engines = [Engine(name, command) for name, command in commands(args, python, threads).items()]
    rates, stream, stream_medians = {}, [], []
    size_mib = str(engines[0].info["weight_bytes"] >> 20)
    for engine in engines:
        engine.run("decode 1 32 4")
    for number in range(args.rounds):
        probe = subprocess.run([str(args.build / "bench/kernels/bench_stream"), size_mib, str(threads)], check=True,
                               capture_output=True, text=True)
        stream.append(json.loads(probe.stdout)["gb_per_s"])
        stream_medians.append(json.loads(probe.stdout)["median_gb_per_s"])
        for case in args.cases:
            for engine in engines:
                rates.setdefault((engine.name, case), []).append(tokens_of(case) / engine.run(case))
        print(f"round {number + 1} of {args.rounds}", file=sys.stderr)
    for engine in engines:
        engine.close()
    text = table(args, engines, rates, stream, stream_medians, threads)
    sys.stdout.write(text)
    if args.out:
        args.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        sys.exit(f"compare.py: {error}")
