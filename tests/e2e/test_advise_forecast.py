"""`sextant advise predict --records`: percentiles under rates that nobody measured, from records of a few fixed concurrencies;
and what bad input is told."""

import json
import statistics

import pytest
import server_process

LLAMA = dict(architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=4096, num_hidden_layers=32,
             num_attention_heads=32, num_key_value_heads=8, intermediate_size=14336, vocab_size=128256,
             max_position_embeddings=131072, rms_norm_eps=1e-5, rope_theta=500000.0, torch_dtype="bfloat16")
QWEN = dict(architectures=["Qwen2ForCausalLM"], model_type="qwen2", hidden_size=5120, num_hidden_layers=64,
            num_attention_heads=40, num_key_value_heads=8, intermediate_size=27648, vocab_size=152064,
            max_position_embeddings=32768, rms_norm_eps=1e-6, rope_theta=1000000.0, torch_dtype="bfloat16")
SIMULATED_RUNS = 5


def output_of(*arguments):
    run = server_process.sextant(*arguments, timeout=300)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def simulated_deployment(directory, name, config, gpu, prompt, output):
    (directory / name).mkdir()
    (directory / name / "config.json").write_text(json.dumps(config))
    return ["simulate", directory / name, "--gpu-type", gpu, "--virtual-time", "--json", "--max-model-len", "8192",
            "--prompt-tokens", str(prompt), "--output-tokens", str(output)]


def test_percentiles_agree_with_the_simulated_server(tmp_path):
    """Two models, Poisson and bursty (CV 3), 30, 60 and 90% of what fixed concurrencies reach; 1,000 requests each. The step's
    cost comes from the records of those concurrencies alone."""
    errors = {name: [] for name in ("p50", "p90", "p95", "p99")}
    for name, config, gpu, prompt, output in (("llama", LLAMA, "L4", 900, 200),
                                              ("qwen", QWEN, "H200-SXM-141GB", 1200, 300)):
        base = simulated_deployment(tmp_path, name, config, gpu, prompt, output)
        records = tmp_path / f"{name}.jsonl"
        saturation = 0
        for concurrency in (1, 4, 16, 64, 128):
            run = output_of(*base, "--concurrency", str(concurrency), "--num-requests", str(max(24, 12 * concurrency)),
                            "--record", records, "--sim-seed", "3")
            saturation = max(saturation, run["record"]["metrics"]["request_rps"])
        for burstiness in (1, 1 / 9):
            for share in (0.3, 0.6, 0.9):
                load = ("--request-rate", str(share * saturation), "--burstiness", str(burstiness))
                runs = [output_of(*base, *load, "--num-requests", "1000", "--sim-seed", str(100 + seed))["record"]["metrics"]
                        for seed in range(SIMULATED_RUNS)]
                forecast = output_of("advise", "predict", "--json", "--records", records, *load, "--prompt-tokens",
                                     str(prompt), "--output-tokens", str(output))
                assert forecast["provenance"] == "estimated from simulated records"
                line = []
                for metric in ("ttft", "tpot", "e2e"):
                    for percentile in errors:
                        simulated = statistics.median(run[f"{metric}_ms"][percentile] for run in runs)
                        figure = forecast["loads"][0][metric][percentile]
                        assert figure["low90_ms"] <= figure["value_ms"] <= figure["high90_ms"]
                        error = figure["value_ms"] / simulated - 1
                        errors[percentile].append(abs(error))
                        line.append(f"{metric} {percentile} {error:+.1%}")
                print(f"{name} {gpu}, {share:.0%}, CV {burstiness ** -0.5:.0f}:", ", ".join(line))
    summary = {name: statistics.median(values) for name, values in errors.items()}
    print("median errors:", ", ".join(f"{name} {error:.1%}" for name, error in summary.items()),
          "; largest:", ", ".join(f"{name} {max(values):.1%}" for name, values in errors.items()))
    assert max(summary["p50"], summary["p90"], summary["p95"]) <= 0.10 and summary["p99"] <= 0.25


def test_percentiles_of_a_catalogued_configuration():
    forecast = output_of("advise", "predict", "--json", "--model", "Qwen/Qwen3-32B", "--gpu", "h100_sxm", "--tensor-parallel",
                         "2", "--quantization", "fp8", "--request-rate", "0.5,2,500", "--prompt-tokens", "1024", "--output-tokens", "256")
    assert forecast["schema"] == "sextant.forecast/1"
    light, busy, over = forecast["loads"]
    for metric in ("ttft", "tpot", "e2e"):
        assert light[metric]["p50"]["value_ms"] < busy[metric]["p50"]["value_ms"] < over[metric]["p50"]["value_ms"]
        assert busy[metric]["p50"]["value_ms"] <= busy[metric]["p99"]["value_ms"] <= busy[metric]["p99"]["high90_ms"]
    assert over["saturated"] and not over["within_limits"] and not light["saturated"]
    # The queue gives back the predictor's means at fixed concurrencies.
    assert forecast["step"]["fitted_to_loads"] >= 8
    assert forecast["step"]["tpot_median_error"] <= 0.10


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    directory = tmp_path_factory.mktemp("records")
    path = directory / "records.jsonl"
    base = simulated_deployment(directory, "llama", LLAMA, "L4", 300, 50)
    for concurrency in ("1", "8"):
        output_of(*base, "--concurrency", concurrency, "--num-requests", "40", "--record", path)
    return path


@pytest.mark.parametrize("flags,named", [
    ((), "--request-rate or --concurrency"),
    (("--request-rate", "0"), "--request-rate"), (("--request-rate", "nan"), "--request-rate"),
    (("--request-rate", "1e9"), "--request-rate"), (("--request-rate", "1", "--burstiness", "0"), "--burstiness"),
    (("--request-rate", "1", "--output-tokens-cv", "-1"), "--output-tokens-cv"),
    (("--request-rate", "1", "--num-requests", "0"), "--num-requests"),
    (("--request-rate", "1", "--prompt-tokens", "90000000"), "cache"),
    (("--request-rate", "1", "--gpu", "A100"), "llama on 1 x L4"),
    (("--concurrency", "0"), "--concurrency"),
])
def test_bad_questions_are_told_what_is_wrong(records, flags, named):
    run = server_process.sextant("advise", "predict", "--records", records, *flags)
    assert run.returncode == 2 and named in run.stderr, run.stderr


@pytest.mark.parametrize("content,named", [
    (b"", "none"), (b"{}\n", "schema"), (b"\xff\xfe\n", "1"), (b"[" * 100000, "1"),
])
def test_bad_record_files_are_told_what_is_wrong(tmp_path, content, named):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    run = server_process.sextant("advise", "predict", "--records", path, "--request-rate", "1")
    assert run.returncode == 2 and "--records" in run.stderr and named in run.stderr, run.stderr
    missing = server_process.sextant("advise", "predict", "--records", tmp_path / "none.jsonl", "--request-rate", "1")
    assert missing.returncode == 2 and "none.jsonl" in missing.stderr, missing.stderr
