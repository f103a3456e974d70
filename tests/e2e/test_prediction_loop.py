"""The loop on one machine: `sextant bench` records a few fixed concurrencies of a real model on the CPU, the advisor predicts
three rates that were not recorded, and they are run. Aims: mean TPOT within 10%, p90 of TTFT within 25%; failed beyond 30% and
60%. Minutes long, and only as steady as the machine: --full."""

import json
import os

import pytest
import server_process
from bench_support import bench, point

PROMPT, OUTPUT = 96, 32
REQUESTS = int(os.environ.get("SEXTANT_LOOP_REQUESTS", "200"))


def run_load(server, *load, lengths=(PROMPT, OUTPUT), record=None, timeout=900):
    arguments = ["--url", server.url, "--random-input-len", lengths[0], "--random-output-len", lengths[1], "--ignore-eos", *load]
    if record:
        arguments += ["--record", record]
    process = bench(*arguments, timeout=timeout)
    assert process.returncode == 0, process.stderr
    return point(process)


def record_of(path):
    return json.loads(path.read_text().splitlines()[-1])["metrics"]


@pytest.mark.skipif("os.environ.get('SEXTANT_FULL_TESTS', '0') != '1'", reason="minutes on a quiet machine: tests/run.sh --full")
def test_what_was_recorded_predicts_what_was_not(model, tmp_path):
    records = tmp_path / "records.jsonl"
    with server_process.Server(model, "--max-num-seqs", "64") as server:
        run_load(server, "--max-concurrency", 1, "--num-prompts", 10)  # warm
        saturation = 0
        for concurrency in (1, 2, 4, 8, 16):
            run_load(server, "--max-concurrency", concurrency, "--num-prompts", 20 * concurrency, "--seed", concurrency,
                     record=records)
            saturation = max(saturation, record_of(records)["request_rps"])
        # Other lengths tell apart what a prompt's token and an answer's token cost.
        for concurrency in (1, 4, 16):
            run_load(server, "--max-concurrency", concurrency, "--num-prompts", 10 * concurrency, "--seed", 50 + concurrency,
                     lengths=(16, 64), record=records)
        alone = json.loads(records.read_text().splitlines()[0])["metrics"]["tpot_ms"]["mean"]
        rates = [share * saturation for share in (0.30, 0.60, 0.85)]
        forecast = server_process.sextant(
            "advise", "predict", "--json", "--records", records, "--request-rate", ",".join(map(str, rates)), "--prompt-tokens",
            PROMPT, "--output-tokens", OUTPUT, "--num-requests", REQUESTS)
        assert forecast.returncode == 0, forecast.stderr
        errors = []
        # Prompts of their own for each run: a prompt that was seen before is in the prefix cache.
        for seed, (rate, predicted) in enumerate(zip(rates, json.loads(forecast.stdout)["loads"]), start=100):
            measured = tmp_path / f"{rate}.jsonl"
            run_load(server, "--request-rate", rate, "--num-prompts", REQUESTS, "--seed", seed, record=measured)
            metrics = record_of(measured)
            tpot = predicted["tpot"]["mean"]["value_ms"] / metrics["tpot_ms"]["mean"] - 1
            ttft = predicted["ttft"]["p90"]["value_ms"] / metrics["ttft_ms"]["p90"] - 1
            errors.append((tpot, ttft))
            print(f"{rate:.2f} requests/s ({rate / saturation:.0%}): mean TPOT {metrics['tpot_ms']['mean']:.2f} ms, predicted "
                  f"{tpot:+.1%}; TTFT p90 {metrics['ttft_ms']['p90']:.1f} ms, predicted {ttft:+.1%}")
        run_load(server, "--max-concurrency", 1, "--num-prompts", 20, "--seed", 200, record=tmp_path / "after.jsonl")
        drift = record_of(tmp_path / "after.jsonl")["tpot_ms"]["mean"] / alone - 1
    print(f"the machine's own speed, one request at a time, before and after: {drift:+.1%}")
    if abs(drift) > 0.15:
        pytest.skip(f"the machine's own speed changed by {drift:+.0%} during the test")
    for tpot, ttft in errors:
        assert abs(tpot) <= 0.30 and abs(ttft) <= 0.60
