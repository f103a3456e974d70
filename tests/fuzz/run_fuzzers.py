"""Runs every fuzzer of a build for a bounded time from its seeds, and writes a JUnit file.

  python3 tests/fuzz/run_fuzzers.py --build build/fuzz --seconds 10

What is found stays in <build>/findings/<fuzzer>/; minimise it and add it to tests/fuzz/corpus with the fix. Inputs that
reached new code stay in <build>/corpus/<fuzzer>/ and are used again by the next run.
"""

import argparse
import concurrent.futures
import os
import pathlib
import subprocess
import sys
import time
import xml.sax.saxutils as saxutils

HERE = pathlib.Path(__file__).resolve().parent


def xml_text(text):
    """Escaped, and without the control characters that XML forbids and a fuzzer's output may hold."""
    return saxutils.escape("".join(c for c in text if c >= " " or c in "\n\t"))


def run(program, build, seconds):
    name = program.name
    grown = build / "corpus" / name
    findings = build / "findings" / name
    for folder in (grown, findings):
        folder.mkdir(parents=True, exist_ok=True)
    seeds = HERE / "corpus" / name.removesuffix("_fuzz")
    folders = [str(grown)] + ([str(seeds)] if seeds.is_dir() else [])
    command = [str(program), f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=2048", "-malloc_limit_mb=1024",
               "-print_final_stats=1", f"-artifact_prefix={findings}/", *folders]
    begin = time.monotonic()
    try:
        process = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                 timeout=seconds + 120, check=False)
        output, failed = process.stdout.decode(errors="replace"), process.returncode != 0
    except subprocess.TimeoutExpired as error:
        output, failed = (error.stdout or b"").decode(errors="replace") + "\nran past its time", True
    return name, failed, output, time.monotonic() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--seconds", type=int, default=10, help="for each fuzzer")
    parser.add_argument("--junit", type=pathlib.Path)
    arguments = parser.parse_args()
    build = arguments.build.resolve()

    sources = sorted(HERE.glob("*_fuzz.cpp"))
    programs = [build / "tests" / "fuzz" / source.stem for source in sources]
    cases = []
    with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        for name, failed, output, seconds in pool.map(lambda program: run(program, build, arguments.seconds), programs):
            stats = [line for line in output.splitlines() if "number_of_executed_units" in line]
            executions = int(stats[0].split()[-1]) if stats else 0
            print(f"{name}: {'FAILED' if failed else 'ok'}, {executions} inputs in {seconds:.0f} s", flush=True)
            if failed:
                print("\n".join(output.splitlines()[-60:]), flush=True)
            failure = f"<failure>{xml_text(output[-4000:])}</failure>" if failed else ""
            cases.append((failed, f'<testcase classname="fuzz" name="{name}" time="{seconds:.1f}">{failure}</testcase>'))
    if not cases:
        cases.append((True, '<testcase classname="fuzz" name="none"><failure>no fuzzers found</failure></testcase>'))
    if arguments.junit:
        arguments.junit.write_text("<testsuite name='fuzz'>" + "".join(text for _, text in cases) + "</testsuite>")
    return 1 if any(failed for failed, _ in cases) else 0


if __name__ == "__main__":
    sys.exit(main())
