#!/usr/bin/env python3
"""`sextant bench serve` on two servers with the same GGUF file: ours, and llama.cpp's through llama-cpp-python (PyPI).

    python3 -m venv VENV && VENV/bin/pip install 'llama-cpp-python[server]'
    VENV/bin/python bench/peers/compare_servers.py --sextant build/release/server/sextant --model MODEL.gguf

Prints what the client measured on each, at concurrency 1 and 4; exit code 1 when a run fails or a request does. Shows that the client works
against both and that its prompts have the length they should have on either; which server is faster depends on the machine. llama-cpp-python's
server answers one request at a time.
"""

import argparse
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile

INPUT_TOKENS, OUTPUT_TOKENS = 48, 16


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def measure(sextant, url, model, concurrency, chat, folder, timeout_s):
    arguments = [sextant, "bench", "serve", "--url", url, "--tokenizer", model, "--max-concurrency", concurrency, "--num-prompts", 4 * concurrency,
                 "--random-input-len", INPUT_TOKENS + (32 if chat else 0), "--random-output-len", OUTPUT_TOKENS, "--ready-timeout-s", timeout_s,
                 "--backend", "openai-chat" if chat else "openai", "--seed", concurrency, "--quiet", "--result-dir", folder,
                 "--result-filename", "result.json"]
    done = subprocess.run([str(argument) for argument in arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        print(f"  failed with {done.returncode}: {done.stderr.strip()}")
        return False
    point = json.loads((folder / "result.json").read_text())["points"][0]
    lengths = point["tokens"]["prompt_lengths"]
    latency = point["latency_ms"]
    print(f"  {'chat' if chat else 'completions':12} concurrency {concurrency}: TTFT {latency['ttft']['mean']:8.1f} ms  TPOT "
          f"{latency['tpot']['mean']:7.2f} ms  {point['rates']['output_tokens_per_s']:7.1f} tok/s  prompt {lengths['mean']:g} tokens, "
          f"counted by {point['tokens']['counted_by']}, engine {point['record']['engine']}")
    return point["counts"]["finished"] == 4 * concurrency


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sextant", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--timeout-s", type=int, default=120)
    arguments = parser.parse_args()
    servers = {"sextant": [arguments.sextant, "serve", arguments.model],
               "llama.cpp": [sys.executable, "-m", "llama_cpp.server", "--model", arguments.model, "--n_ctx", "2048",
                             # By default a new request cuts off the one that is being answered.
                             "--interrupt_requests", "false"]}
    good = True
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for server, command in servers.items():
            port = free_port()
            with open(folder / f"{server}.log", "w+", encoding="utf-8") as log:
                process = subprocess.Popen([*command, "--port", str(port)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
                try:
                    print(server)
                    for chat in (False, True):
                        for concurrency in (1, 4):
                            good &= measure(arguments.sextant, f"http://127.0.0.1:{port}", arguments.model, concurrency, chat, folder,
                                            arguments.timeout_s)
                finally:
                    process.terminate()
                    process.wait(30)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
