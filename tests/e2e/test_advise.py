"""`sextant advise` through the program: accuracy on rows left out, and what bad files are told. Needs no model."""

import csv
import json
import pathlib

import pytest
import server_process

DATA = server_process.ROOT / "advisor" / "data" / "measured_serving.csv"


def accuracy(*arguments):
    run = server_process.sextant("advise", "accuracy", "--json", *arguments, timeout=900)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


# Limits of median errors in %: TPOT, TTFT.
@pytest.mark.parametrize("kind,folds,limits", [("interior", 6, (2.5, 7)), ("group", 6, (6, 12))])
def test_points_left_out_are_predicted(kind, folds, limits):
    """The whole table takes `advise accuracy` without arguments, minutes; these are the kinds that users meet most."""
    scores = accuracy("--kinds", kind, "--folds", str(folds), "--seed", "7")["kinds"][kind]
    for metric, limit in zip(("tpot", "ttft"), limits):
        score = scores[metric]
        assert score["n"] > 1000
        assert score["median_error_pct"] <= limit
        assert score["median_error_pct"] < score["extra_trees"]["median_error_pct"]
        # 88 to 95% is the aim; a sixth left out at once is harder than what a user asks.
        assert 85 <= score["interval_coverage_pct"] <= 97
        assert score["verdict"]["uncertain_pct"] <= 10
    assert scores["tpot"]["verdict"]["agree_pct"] >= 97 and scores["tpot"]["verdict"]["false_pass_pct"] <= 2
    assert scores["ttft"]["verdict"]["agree_pct"] >= 94 and scores["ttft"]["verdict"]["false_pass_pct"] <= 3


def test_scores_a_file_by_its_kinds_of_holdout(tmp_path):
    rows = list(csv.DictReader(DATA.open()))
    held = [dict(row, holdout="pair") for row in rows if row["model_id"].startswith("zhipuai/") and row["gpu"] == "h200_sxm"]
    held += [dict(row, holdout="group") for row in rows if row["model_id"] == "Qwen/Qwen3-32B" and row["prompt_tokens"] == "2048"]
    names = [{key: row[key] for key in row if key != "holdout"} for row in held]
    train = [row for row in rows if row not in names]
    for name, part in (("train.csv", train), ("score.csv", held)):
        with (tmp_path / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, list(part[0]))
            writer.writeheader()
            writer.writerows(part)
    report = accuracy("--train", tmp_path / "train.csv", "--score", tmp_path / "score.csv", "--no-baseline")
    assert set(report["kinds"]) == {"pair", "group"}
    assert report["scored"] == len(held)
    assert report["kinds"]["pair"]["ttft"]["n"] == sum(row["holdout"] == "pair" for row in held)
    assert "extra_trees" not in report["kinds"]["pair"]["ttft"]


@pytest.mark.parametrize("content,named", [
    (b"", "empty"), (b"model_id,gpu\na,b\n", "engine"), (b"\xff\xfe", "UTF-8"), (b"a,b\n1\n", "line 2"),
    (DATA.read_bytes().replace(b",154.864,", b",-5,", 1), "ttft_mean_ms"),
    (DATA.read_bytes().split(b"\n")[0] + b"\n", "no rows"),
])
def test_bad_files_are_told_what_is_wrong(tmp_path, content, named):
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    for flag in ("--train", "--score"):
        run = server_process.sextant("advise", "accuracy", flag, path)
        assert run.returncode == 2 and run.stdout == ""
        assert named in run.stderr and flag in run.stderr


@pytest.mark.parametrize("arguments", [("--folds", "1"), ("--kinds", "all"), ("--tpot-limit-ms", "-1"), ("--train", "/no/such.csv"), ("--seed", "x")])
def test_bad_flags_end_with_two(arguments):
    run = server_process.sextant("advise", "accuracy", *arguments)
    assert run.returncode == 2 and arguments[0] in run.stderr
    assert pathlib.Path(server_process.BINARY).is_file()
