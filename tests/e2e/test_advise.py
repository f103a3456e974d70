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


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tmp_path_factory.mktemp("kb") / "kb.sqlite"


def test_predicts_a_measured_load_near_its_measurement(base):
    row = next(row for row in csv.DictReader(DATA.open())
               if row["model_id"] == "Qwen/Qwen3-32B" and row["engine"] == "vllm" and row["concurrency"] == "64" and row["gemm_quant"] == "")
    run = server_process.sextant("advise", "predict", "--kb", base, "--model", row["model_id"], "--gpu", row["gpu"], "--engine", "vllm",
                                 "--engine-version", row["engine_version"], "--quantization", "bf16", "--tensor-parallel", row["tensor_parallel"],
                                 "--concurrency", "64,8,16", "--prompt-tokens", row["prompt_tokens"], "--output-tokens", row["output_tokens"], "--json",
                                 timeout=300)
    assert run.returncode == 0, run.stderr
    answer = json.loads(run.stdout)
    assert answer["fits"] and [load["concurrency"] for load in answer["loads"]] == [8, 16, 64]
    last = answer["loads"][-1]
    # The row's quantisation is unknown and 16 bits are asked for: never merged, so this is an estimate.
    assert last["tpot"]["provenance"] == "estimated"
    assert last["tpot"]["low90_ms"] <= float(row["tpot_mean_ms"]) <= last["tpot"]["high90_ms"]
    assert last["output_tokens_per_s"] == pytest.approx(64 / last["e2e_mean_ms"] * 1000 * float(row["output_tokens"]), rel=1e-3)


def test_fit_says_how_many_users_or_why_not(base):
    fit = ("advise", "fit", "--kb", base, "--gpu", "H100-SXM5-80GB", "--json")
    run = server_process.sextant(*fit, "--model", "meta-llama/Llama-3.1-70B", timeout=300)
    assert run.returncode == 3 and not json.loads(run.stdout)["fits"] and "weights" in json.loads(run.stdout)["reason"]
    run = server_process.sextant(*fit, "--model", "meta-llama/Llama-3.1-70B", "--quantization", "fp8", "--tensor-parallel", "4", timeout=300)
    assert run.returncode == 0, run.stderr
    answer = json.loads(run.stdout)
    assert answer["users"] == answer["requests_at_once_within_limits"] * 10 > 0
    for arguments, named in ((("--model", "Qwen/Qwen3-32"), "Qwen/Qwen3-32B"), (("--model", "Qwen/Qwen3-32B", "--tensor-parallel", "3"), "tensor"),
                             (("--model", "Qwen/Qwen3-32B", "--prompt-tokens", "nan"), "--prompt-tokens"),
                             (("--model", "Qwen/Qwen3-32B", "--ttft-limit-ms", "-5"), "--ttft-limit-ms")):
        run = server_process.sextant(*fit, *arguments)
        assert run.returncode == 2 and named in run.stderr and run.stdout == "", run.stderr
