"""Adds up what tests/run.sh's stages left in its results folder: stages.tsv (name, seconds, exit status, JUnit file or
"-") and the JUnit files themselves.

Prints the table of minutes per stage and, as the last line, "N passed, N failed, N skipped". A stage that failed without
a failed test of its own (a build, a runner that crashed) counts as one failure. Exits 1 when anything failed.
"""

import pathlib
import sys
import xml.etree.ElementTree as ElementTree


def outcome(case):
    """Of one JUnit case: CTest writes a status attribute where others write child elements only."""
    if case.find("failure") is not None or case.find("error") is not None or case.get("status") == "fail":
        return "failed"
    if case.find("skipped") is not None or case.get("status") in ("notrun", "disabled"):
        return "skipped"
    return "passed"


def main():
    results = pathlib.Path(sys.argv[1])
    totals = {"passed": 0, "failed": 0, "skipped": 0}
    rows = []
    stages_path = results / "stages.tsv"
    for line in stages_path.read_text().splitlines() if stages_path.exists() else ():
        name, seconds, status, junit = line.split("\t")
        counts = {"passed": 0, "failed": 0, "skipped": 0}
        if junit != "-":
            try:
                for case in ElementTree.parse(results / junit).iter("testcase"):
                    counts[outcome(case)] += 1
                    if outcome(case) == "failed":
                        print(f"failed: {name}: {case.get('classname', '')} {case.get('name', '')}")
            except (ElementTree.ParseError, OSError) as error:
                print(f"failed: {name}: no test report ({error})")
                status = status if status != "0" else "1"
        if status != "0" and not counts["failed"]:
            counts["failed"] = 1
        for kind, number in counts.items():
            totals[kind] += number
        rows.append((name, float(seconds), status, counts if junit != "-" else None))
    if not totals["passed"] and not totals["failed"] and len(rows) == 0:
        totals["failed"] = 1  # nothing ran: that is no success

    print()
    print(f"{'stage':<22} {'minutes':>8}  {'result':<12} tests")
    for name, seconds, status, counts in rows:
        tests = "{passed} passed, {failed} failed, {skipped} skipped".format(**counts) if counts else ""
        print(f"{name:<22} {seconds / 60:8.1f}  {'ok' if status == '0' else f'FAILED ({status})':<12} {tests}".rstrip())
    print(f"{'total':<22} {sum(row[1] for row in rows) / 60:8.1f}")
    print()
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**totals))
    return 1 if totals["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
