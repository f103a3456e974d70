"""`sextant bench matrix`: starts a server per combination of settings, measures, resumes, skips what is done."""

import json
import sys

from bench_support import MOCK, Mock
from server_process import sextant


def write_matrix(path, **changes):
    matrix = {"server": {"command": [sys.executable, "-c", f"import subprocess,sys; sys.exit(subprocess.call([sys.executable, {str(MOCK)!r}, "
                                     "*sys.argv[1:]], stdin=subprocess.PIPE))", "--port", "{port}"], "settings": {"ttft_ms": [5, 20]}},
              "lengths": [[8, 4], [16, 4]], "concurrency": [1, 2], "num_prompts": 4, "records": str(path.parent / "records.jsonl")}
    matrix.update(changes)
    path.write_text(json.dumps({key: value for key, value in matrix.items() if value is not None}))
    return path


def records(path):
    file = path.parent / "records.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_measures_resumes_and_skips(tmp_path):
    matrix = write_matrix(tmp_path / "matrix.json")
    listed = sextant("bench", "matrix", matrix, "--list")
    assert listed.returncode == 0 and listed.stdout.count("to do") == 8, listed.stderr
    first = sextant("bench", "matrix", matrix)
    assert first.returncode == 0, first.stderr
    assert "8 measured, 0 were done, 0 failed, of 8" in first.stdout
    found = records(matrix)
    assert len({record["record_id"] for record in found}) == 8
    assert {record["engine_config"]["ttft_ms"] for record in found} == {5, 20}
    assert all(record["metrics"]["ttft_ms"]["mean"] >= record["engine_config"]["ttft_ms"] for record in found)
    page = (tmp_path / "records.html").read_text()
    assert "8 of 8 measured" in page and page.count("<figure>") == 2 * 4 and "ttft_ms 20" in page and "not measured" not in page
    assert "http" not in page.replace("http://www.w3.org", ""), "the page loads nothing"
    # An interruption leaves some cells undone: only those are measured.
    cells = tmp_path / "records.jsonl.cells"
    cells.write_text("".join(cells.read_text().splitlines(keepends=True)[:5]))
    again = sextant("bench", "matrix", matrix)
    assert again.returncode == 0 and "3 measured, 5 were done" in again.stdout, again.stderr
    assert "8 of 8 measured" in (tmp_path / "records.html").read_text(), "what was done before is in the page too"
    # A cell whose record is gone is not done.
    lines = (tmp_path / "records.jsonl").read_text().splitlines(keepends=True)
    last = {line.split()[1] for line in cells.read_text().splitlines()[-1:]}
    (tmp_path / "records.jsonl").write_text("".join(line for line in lines if json.loads(line)["record_id"] not in last))
    repaired = sextant("bench", "matrix", matrix)
    assert "1 measured, 7 were done" in repaired.stdout, repaired.stderr
    # More of the same: what is new only.
    write_matrix(matrix, concurrency=[1, 2, 3])
    more = sextant("bench", "matrix", matrix)
    assert "4 measured, 8 were done" in more.stdout, more.stderr


def test_a_server_that_runs_already(tmp_path):
    with Mock("--ttft-ms", 2, "--tpot-ms", 0) as mock:
        matrix = write_matrix(tmp_path / "matrix.json", server=None, url=mock.url)
        process = sextant("bench", "matrix", matrix)
    assert process.returncode == 0, process.stderr
    assert len(records(matrix)) == 4


def test_hostile_records_and_pages(tmp_path):
    with Mock("--ttft-ms", 2, "--tpot-ms", 0) as mock:
        matrix = write_matrix(tmp_path / "matrix.json", server=None, url=mock.url, model="<script>alert(1)</script>")
        process = sextant("bench", "matrix", matrix)
        page = tmp_path / "records.html"
        assert not page.exists() or "<script" not in page.read_text(), process.stderr
        matrix = write_matrix(tmp_path / "matrix.json", server=None, url=mock.url)
        unwritable = sextant("bench", "matrix", matrix, "--html", tmp_path / "no" / "folder.html")
        assert unwritable.returncode == 1 and "cannot write" in unwritable.stderr and len(records(matrix)) >= 4, "what was measured is kept"
        (tmp_path / "records.jsonl").write_text("not a record\n")
        broken = sextant("bench", "matrix", matrix)
    assert broken.returncode == 2 and "records.jsonl:1: " in broken.stderr, broken.stderr


def test_servers_that_cannot_start(tmp_path):
    matrix = write_matrix(tmp_path / "matrix.json", server={"command": ["/nowhere/server"]})
    process = sextant("bench", "matrix", matrix)
    assert process.returncode == 2 and "cannot start /nowhere/server" in process.stderr
    matrix = write_matrix(tmp_path / "matrix.json", server={"command": [sys.executable, "-c", "print('no GPU'); raise SystemExit(3)"]})
    process = sextant("bench", "matrix", matrix)
    assert process.returncode == 1 and "the server ended" in process.stderr
    assert "no GPU" in (tmp_path / "records.jsonl.server.log").read_text()


def test_bad_files(tmp_path):
    for changes, says in (({"lenghts": []}, "did you mean lengths?"), ({"lengths": [[1]]}, "pairs"), ({"concurrency": [0]}, "whole numbers"),
                          ({"concurrency": None}, "concurrency or request_rate"), ({"url": "http://x"}, "one of the two"),
                          ({"server": {"command": "x"}}, "server must be"), ({"lengths": [["gauss:1", 2]]}, "lengths must be"),
                          ({"slo": "ttft"}, "slo must be")):
        process = sextant("bench", "matrix", write_matrix(tmp_path / "matrix.json", **changes))
        assert process.returncode == 2 and says in process.stderr, (changes, process.stderr)
    (tmp_path / "bad.json").write_text("{")
    assert sextant("bench", "matrix", tmp_path / "bad.json").returncode == 2
    assert sextant("bench", "matrix").returncode == 2
