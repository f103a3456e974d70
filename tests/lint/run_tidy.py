"""clang-tidy over the sources that a change touches (or all), within a time limit, and a JUnit file of the outcome.

  python3 tests/lint/run_tidy.py --build build/release [--scope all] [--base COMMIT]

A changed .cpp is linted; for a changed header, the .cpp of the same name. "Changed" is against --base, else the merge
base with the main branch, else (on that branch itself) the last commits up to --max-commits, and what is not committed.
Sources that the limit leaves unlinted are named and count as skipped.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import time
import xml.sax.saxutils as saxutils

ROOT = pathlib.Path(__file__).resolve().parents[2]


def git(*arguments):
    process = subprocess.run(["git", *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    return process.stdout.decode().split("\n")[:-1] if process.returncode == 0 else []


def merge_base(max_commits):
    head = git("rev-parse", "HEAD")
    for branch in ("origin/main", "origin/master", "main", "master"):
        base = git("merge-base", "HEAD", branch)
        if base and base != head:
            return base[0]
    commits = git("rev-list", f"--max-count={max_commits + 1}", "HEAD")
    return commits[-1] if len(commits) > 1 else None


def changed_files(base):
    if base is None:
        return None
    return set(git("diff", "--name-only", base)) | set(git("ls-files", "--others", "--exclude-standard"))


def lint(entry, build, deadline):
    source = entry["file"]
    left = deadline - time.monotonic()
    if left <= 0:
        return source, "skipped", "the time limit was reached", 0
    begin = time.monotonic()
    try:
        process = subprocess.run(["clang-tidy", "-p", str(build), "--quiet", "--extra-arg=-Wno-unknown-warning-option",
                                  "--extra-arg=-Wno-everything", source],
                                 cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                 timeout=left, check=False)
    except subprocess.TimeoutExpired:
        return source, "skipped", "the time limit was reached", time.monotonic() - begin
    output = process.stdout.decode(errors="replace")
    return source, "passed" if process.returncode == 0 else "failed", output, time.monotonic() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True, help="a build folder with compile_commands.json")
    parser.add_argument("--scope", choices=("changed", "all"), default="changed")
    parser.add_argument("--base", help="commit that the change is against")
    parser.add_argument("--max-commits", type=int, default=10)
    parser.add_argument("--limit-s", type=float, default=180)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--junit", type=pathlib.Path)
    arguments = parser.parse_args()

    database = json.loads((arguments.build / "compile_commands.json").read_text())
    entries = {}
    for entry in database:
        path = pathlib.Path(entry["directory"], entry["file"]).resolve()
        if path.is_relative_to(ROOT) and not path.is_relative_to(arguments.build.resolve()):
            entries[str(path.relative_to(ROOT))] = entry
    files = None if arguments.scope == "all" else changed_files(arguments.base or merge_base(arguments.max_commits))
    if files is not None:
        touched = {str(pathlib.Path(name).with_suffix(".cpp")) for name in files if name.endswith((".cpp", ".h"))}
        entries = {name: entry for name, entry in entries.items() if name in touched}
    # Sources before their tests: what the limit cuts off should be the less important part.
    ordered = sorted(entries, key=lambda name: (name.startswith("tests/"), name))
    deadline = time.monotonic() + arguments.limit_s

    cases = []
    with concurrent.futures.ThreadPoolExecutor(max_workers=arguments.jobs) as pool:
        linted = pool.map(lambda name: (name, *lint(entries[name], arguments.build, deadline)[1:]), ordered)
        for name, outcome, output, seconds in linted:
            cases.append((name, outcome, output, seconds))
            if outcome == "failed":
                print(output.strip(), flush=True)
    counts = {kind: sum(case[1] == kind for case in cases) for kind in ("passed", "failed", "skipped")}
    print("clang-tidy: {passed} passed, {failed} failed, {skipped} not reached".format(**counts))
    for name, outcome, _, _ in cases:
        if outcome == "skipped":
            print(f"  not reached: {name}")
    if arguments.junit:
        with arguments.junit.open("w") as out:
            out.write("<testsuite name='clang-tidy'>")
            for name, outcome, output, seconds in cases:
                text = saxutils.escape("".join(c for c in output[-4000:] if c >= " " or c in "\n\t"))
                child = {"passed": "", "failed": f"<failure>{text}</failure>", "skipped": "<skipped/>"}[outcome]
                out.write(f'<testcase classname="tidy" name={saxutils.quoteattr(name)} time="{seconds:.1f}">{child}</testcase>')
            out.write("</testsuite>")
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
