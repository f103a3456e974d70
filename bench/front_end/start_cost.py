#!/usr/bin/env python3
"""What a server costs until it is ready: seconds from its start to ready (repacking of the weights included), and its memory then.

    python3 bench/front_end/start_cost.py --model MODEL.gguf [--rounds 5] [--at-most-s 1.5]

Memory is everything resident (VmRSS), nothing taken off, although the KV cache and the workspace of the plan are counted as far as they
have been touched; it is held to 1.4 times the file + 48 MiB. The file itself must no longer be mapped. Exit codes: 0 done, 1 a server
failed, 2 bad arguments, 3 too much memory or (with --at-most-s) time. Standard library only.
"""
import argparse
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time

import http_share

MIB = 1 << 20


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--at-most-s", type=float, default=0, help="exit with 3 when the median start takes longer")
    parser.add_argument("--build", type=pathlib.Path, default=http_share.ROOT / "build" / "release")
    args = parser.parse_args()
    model = pathlib.Path(args.model)
    if args.rounds < 1 or not model.is_file():
        parser.error("--rounds must be at least 1, --model a file")
    seconds, resident = [], []
    for _ in range(args.rounds):
        begin = time.monotonic()
        server, _ = http_share.start_server(str(args.build / "server/sextant"), str(model))
        try:
            seconds.append(time.monotonic() - begin)
            process = pathlib.Path("/proc", str(server.pid))
            resident.append(int(re.search(r"VmRSS:\s+(\d+) kB", (process / "status").read_text()).group(1)) * 1024)
            if str(model.resolve()) in (process / "maps").read_text():
                raise RuntimeError(f"{model} is still mapped")
        finally:
            server.terminate()
            server.wait(60)
    limit = 1.4 * model.stat().st_size + 48 * MIB
    print(f"load {os.getloadavg()[0]:.2f}; {model.name}, {model.stat().st_size / MIB:.1f} MiB; {args.rounds} starts")
    print(f"ready after {statistics.median(seconds):.2f} s (median; from {min(seconds):.2f} to {max(seconds):.2f})")
    print(f"resident {max(resident) / MIB:.1f} MiB at most; limit {limit / MIB:.1f} MiB")
    too_long = args.at_most_s > 0 and statistics.median(seconds) > args.at_most_s
    return 3 if too_long or max(resident) > limit else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        sys.exit(f"start_cost.py: {error}")
