#!/usr/bin/env python3
"""How much of its decode rate an engine keeps while another process burns one of the cores.

Each round runs the case once quiet and once beside a process that does nothing but compute, pinned to the last of the cores that this
one may use, or with --unpinned to none. A fair share of C cores is then (C - 0.5) / C of the quiet rate for pinned threads, and
C / (C + 1) for threads that the system moves about. A rate comes from the mean step, because a burned core makes some steps long and
leaves others as they were; printed are medians of the rounds, the share being the median of the rounds' shares.

    bench/peers/burned_core.py --model MODEL.gguf                          this engine
    bench/peers/burned_core.py --model MODEL.gguf --peers llama.cpp        and a peer, installed as by compare.py
    bench/peers/burned_core.py --model MODEL.gguf --case "decode 8 128 64" --rounds 9

Only a machine with nothing else to do gives figures that mean anything: the load average is printed with them. Exit codes: 0 done, 1 an
engine failed, 2 bad arguments, 3 less than --at-least of the quiet rate was kept by this engine.
"""
import argparse
import contextlib
import os
import pathlib
import statistics
import subprocess
import sys
import time

import compare

BURN = "import os, sys\nif sys.argv[1:]: os.sched_setaffinity(0, {int(sys.argv[1])})\nprint(flush=True)\nwhile True: pass\n"


@contextlib.contextmanager
def burned_core(cpu):
    """cpu: which one, or None for a process that the system may move."""
    command = [sys.executable, "-c", BURN] + ([] if cpu is None else [str(cpu)])
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            process.stdout.readline()  # it burns from here on
            time.sleep(0.1)
            yield
        finally:
            process.kill()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a GGUF file that all engines read")
    parser.add_argument("--case", default="decode 1 128 64", help="as compare.py's")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", nargs="*", default=[], choices=list(compare.PACKAGES))
    parser.add_argument("--unpinned", action="store_true", help="let the system move the burning process")
    parser.add_argument("--at-least", type=float, default=0, metavar="SHARE", help="exit with 3 when this engine keeps less, such as 0.6")
    parser.add_argument("--build", type=pathlib.Path, default=compare.ROOT / "build" / "release")
    parser.add_argument("--venv", type=pathlib.Path, default=compare.ROOT / "build" / "peers")
    args = parser.parse_args()
    args.f32 = False
    if args.rounds < 1:
        parser.error("--rounds must be at least 1")
    if not pathlib.Path(args.model).is_file():
        parser.error(f"there is no file {args.model}; deploy/fetch-default-model.sh prints where the default model lies")
    if not (args.build / "bench/engine/raw_engine").exists():
        parser.error(f"{args.build / 'bench/engine/raw_engine'} is missing: ninja -C {args.build} raw_engine")
    cpus = sorted(os.sched_getaffinity(0))
    python = compare.install(args.venv, args.peers) if args.peers else None
    engines = [compare.Engine(name, command) for name, command in compare.commands(args, python, len(cpus)).items()]
    rates = {}
    load = os.getloadavg()[0]
    for engine in engines:
        engine.run("decode 1 32 4")
    for number in range(args.rounds):
        for engine in engines:
            quiet = compare.tokens_of(args.case) / engine.ask(args.case)["mean_seconds"]
            with burned_core(None if args.unpinned else cpus[-1]):
                burned = compare.tokens_of(args.case) / engine.ask(args.case)["mean_seconds"]
            rates.setdefault(engine.name, []).append((quiet, burned))
        print(f"round {number + 1} of {args.rounds}", file=sys.stderr)
    for engine in engines:
        engine.close()
    where = "on any core" if args.unpinned else f"on core {cpus[-1]}"
    print(f"{compare.cpu_name()}, {len(cpus)} cores; load before {load:.2f}; `{args.case}`, medians of {args.rounds} rounds; a process burns {where}\n")
    print("| engine | quiet tok/s | burned tok/s | kept | lowest round | highest |\n|---|---|---|---|---|---|")
    kept = {}
    for name, pairs in rates.items():
        shares = [burned / quiet for quiet, burned in pairs]
        kept[name] = statistics.median(shares)
        print(f"| {name} | {statistics.median(q for q, _ in pairs):.1f} | {statistics.median(b for _, b in pairs):.1f} | "
              f"{100 * kept[name]:.0f}% | {100 * min(shares):.0f}% | {100 * max(shares):.0f}% |")
    return 3 if kept["sextant"] < args.at_least else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        sys.exit(f"burned_core.py: {error}")
