"""The loads and data sets of `sextant bench serve`, each short, against `sextant simulate`: what was planned, by the result's own rows and
by what the server received. Nothing here depends on how fast the machine is: times are those at which requests were due."""

import csv
import json
import subprocess

import pytest
import server_process
from bench_support import Mock, bench, point
from server_process import Server

SHORT = ("--random-input-len", 4, "--random-output-len", 2, "--num-prompts", 1000)


@pytest.fixture(scope="module")
def simulator():
    with Server(None, "--time", "constant:ttft=2ms,tpot=1ms", verb="simulate") as server:
        yield server.url


def due_times(tmp_path, *arguments):
    """When each request was due, in seconds of the run."""
    path = tmp_path / "requests.csv"
    process = bench(*arguments, "--metrics-url", "none", "--csv", path)
    assert process.returncode == 0, process.stderr
    with open(path, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["outcome"] != "not_sent"]
    assert all(row["outcome"] == "finished" for row in rows), rows
    return [float(row["scheduled_s"]) for row in rows], point(process), rows


def counts(times, edges):
    return [sum(low <= time < high for time in times) for low, high in zip(edges, edges[1:])]


def test_ramp(simulator, tmp_path):
    times, measured, _ = due_times(tmp_path, "--url", simulator, "--ramp-up-start-rps", 20, "--ramp-up-end-rps", 180, "--duration-s", 1,
                                   "--burstiness", "inf", *SHORT)
    # 20 + 160 t requests/s: request k is due when 20 t + 80 t^2 = k. A machine that stalls sends the last of them too late, which is not at all.
    assert measured["load"]["kind"] == "ramp" and 10 <= len(times) <= 101
    assert all(abs(20 * time + 80 * time * time - k) <= 1.01 for k, time in enumerate(times)), times


def test_stages(simulator, tmp_path):
    times, measured, _ = due_times(tmp_path, "--url", simulator, "--stages", "40:0.5,160:0.5", "--burstiness", "inf", *SHORT)
    early, late = counts(times, [0, 0.5, 1.0001])
    assert measured["load"]["kind"] == "stages" and abs(early - 20) <= 1 and abs(late - 80) <= 1, (early, late)
    for wrong in ("", "5", "5:0", "-1:3", "1e400:1", "1:1e400", "x:y"):
        process = bench("--url", simulator, "--load", "stages", "--stages", wrong, *SHORT)
        assert process.returncode == 2 and "stages" in process.stderr, (wrong, process.stderr)


def test_a_day_of_24_hours(simulator, tmp_path):
    """Compressed into 1.2 s: 12 hours at a third of the other 12."""
    shape = ",".join(["1"] * 12 + ["3"] * 12)
    times, measured, _ = due_times(tmp_path, "--url", simulator, "--day-s", 1.2, "--daily-shape", shape, "--request-rate", 100,
                                   "--burstiness", "inf", *SHORT)
    night, day = counts(times, [0, 0.6, 1.2001])
    assert measured["load"]["kind"] == "diurnal" and abs(night + day - 120) <= 2 and abs(day - 3 * night) <= 8, (night, day)
    process = bench("--url", simulator, "--day-s", 1, "--daily-shape", "1,2,3", "--request-rate", 5)
    assert process.returncode == 2 and "24" in process.stderr


def test_sweep_from_idle_to_saturation(simulator, tmp_path):
    process = bench("--url", simulator, "--sweep", 4, "--duration-s", 0.4, "--max-concurrency", 8, "--html", tmp_path / "r.html",
                    "--record", tmp_path / "r.jsonl", *SHORT)
    assert process.returncode == 0, process.stderr
    points = process.result["points"]
    assert len(points) == 4
    assert [points[i]["load"]["kind"] for i in (0, 1)] == ["concurrency"] * 2
    rates = [each["load"]["request_rate"] for each in points[2:]]
    assert 0 < rates[0] < rates[1] < points[1]["rates"]["request_rps"]
    html = (tmp_path / "r.html").read_text()
    assert html.count("<svg") >= 3 and "<script" not in html
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 4
    assert bench("--url", simulator, "--sweep", 2).returncode == 2


def test_mooncake_trace(simulator, tmp_path):
    trace = tmp_path / "trace.jsonl"
    entries = [{"timestamp": 1000 + 200 * i, "input_length": 600, "output_length": 2 + i, "hash_ids": [7, 100 + i]} for i in range(5)]
    trace.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    times, measured, rows = due_times(tmp_path, "--url", simulator, "--dataset-name", "mooncake", "--dataset-path", trace, "--trace-speed", 2)
    assert times == pytest.approx([0, 0.1, 0.2, 0.3, 0.4], abs=1e-6) and measured["load"]["kind"] == "trace"
    assert [int(row["output_tokens"]) for row in rows] == [2, 3, 4, 5, 6]


def test_burstgpt_trace(simulator, tmp_path):
    trace = tmp_path / "trace.csv"
    trace.write_text("Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,4,3,7,API log\n"
                     "5.2,ChatGPT,9,0,9,API log\n5.3,GPT-4,6,2,8,API log\n")
    times, measured, rows = due_times(tmp_path, "--url", simulator, "--dataset-name", "burstgpt", "--dataset-path", trace)
    assert times == pytest.approx([0, 0.3], abs=1e-6) and measured["load"]["kind"] == "trace"
    assert [int(row["output_tokens"]) for row in rows] == [3, 2]


@pytest.mark.parametrize("kind, content, says", [
    ("mooncake", b'{"timestamp":1,"input_length":4,"output_length":2}\n{"timestamp":2}\n', ":2: "),
    ("mooncake", b'{"timestamp":1e300,"input_length":4,"output_length":2}\n', ":1: "),
    ("mooncake", b'{"timestamp":0,"input_length":4,"output_length":2}\n{"timestamp":9e12,"input_length":4,"output_length":2}\n', "30 years"),
    ("mooncake", b'{"timestamp":1,"input_length":-4,"output_length":2}', ":1: "),
    ("mooncake", b'[[[[' * 100_000, ":1: "),
    ("mooncake", None, "longer than 16 MiB"),
    ("burstgpt", b"Timestamp,Request tokens\n1,2\n", "Response tokens"),
    ("burstgpt", b"Timestamp,Request tokens,Response tokens\n1,2,3\n1,nan,3\n", ":3: "),
    ("burstgpt", b"Timestamp,Request tokens,Response tokens\n1e13,2,3\n", ":2: "),
    ("burstgpt", b"Timestamp,Request tokens,Response tokens\n", "no requests"),
    ("burstgpt", None, "longer than 16 MiB"),
    ("sharegpt", b'{"conversations": [', ""), ("sharegpt", b'[{"conversations": 5}]', ""), ("sharegpt", b"\x00\xff", "")])
def test_files_that_are_no_data_set(simulator, tmp_path, kind, content, says):
    """One line that names file and line, before anything is sent; None: an endless file."""
    path = tmp_path / "data"
    if content is not None:
        path.write_bytes(content)
    process = bench("--url", simulator, "--dataset-name", kind, "--dataset-path", path if content is not None else "/dev/zero")
    assert process.returncode == 2, process.stderr
    assert "dataset_path" in process.stderr.replace("--dataset-path", "dataset_path") and says in process.stderr, process.stderr
    assert process.result is None


def test_sharegpt_file(tmp_path):
    data = tmp_path / "sharegpt.json"
    data.write_text(json.dumps([{"conversations": [{"from": "human", "value": f"question {i} about many things at once"},
                                                   {"from": "gpt", "value": "an answer of several words here"}]} for i in range(6)]))
    with Mock("--ttft-ms", 1, "--tpot-ms", 0) as mock:
        process = bench("--url", mock.url, "--backend", "openai-chat", "--dataset-name", "sharegpt", "--dataset-path", data,
                        "--num-prompts", 6, "--sharegpt-output-len", 5, "--max-concurrency", 2)
        assert process.returncode == 0, process.stderr
    asked = [json.loads(body) for body in mock.bodies[1:]]
    assert {body["messages"][0]["content"] for body in asked} == {f"question {i} about many things at once" for i in range(6)}
    assert {body.get("max_tokens", body.get("max_completion_tokens")) for body in asked} == {5}


def test_shared_prefixes_are_found_in_the_servers_cache(simulator):
    """Nine tenths of each prompt in common, one request after another: the scheduler's prefix cache finds them from the second on."""
    process = bench("--url", simulator, "--random-prefix-len", 90, "--random-input-len", 10, "--random-output-len", 2, "--num-prompts", 10,
                    "--max-concurrency", 1, "--seed", 5)
    assert process.returncode == 0, process.stderr
    assert point(process)["tokens"]["prefix_hit_ratio"] > 0.7


def test_multi_turn_under_a_rate(simulator, tmp_path):
    """A turn is due when the one before has been answered and thought about, whatever the rate says."""
    _, measured, rows = due_times(tmp_path, "--url", simulator, "--backend", "openai-chat", "--num-turns", 3, "--think-time-s", 0.05,
                                  "--request-rate", 200, "--random-input-len", 4, "--random-output-len", 2, "--num-prompts", 9)
    assert measured["counts"]["finished"] == 9
    for first in range(0, 9, 3):
        turns = sorted((row for row in rows if first <= int(row["request"]) < first + 3), key=lambda row: int(row["request"]))
        for before, after in zip(turns, turns[1:]):
            answered = float(before["sent_s"]) + float(before["e2e_ms"]) / 1e3
            assert float(after["sent_s"]) >= answered + 0.05 - 1e-3


# --- kernels ------------------------------------------------------------------------------------------------------------


def test_kernels_are_measured_alone(tmp_path):
    records = tmp_path / "records.jsonl"
    process = server_process.sextant("bench", "kernels", "--filter", "/q4_1/T=1,", "--isa", "all", "--min-time-s", 0.02, "--json",
                                     "--record", records)
    assert process.returncode == 0, process.stderr
    roofs, *results = [json.loads(line) for line in process.stdout.splitlines()]
    assert roofs["roof_read_gb_per_s"] > 0.1 and roofs["roof_fp32_gflop_per_s"] > 0.1
    assert results and all(row["op"] == "matmul" and row["weights"] == "q4_1" for row in results)
    for row in results:
        assert row["flops_per_call"] == 2 * row["shape"]["K"] * row["shape"]["N"] and row["bytes_per_call"] > row["flops_per_call"] / 4
        assert row["fastest_us"] <= row["median_us"] <= row["slowest_us"]
        assert row["gb_per_s"] == pytest.approx(row["bytes_per_call"] / row["median_us"] / 1e3, rel=1e-6)
    listed = server_process.sextant("bench", "kernels", "--list")
    assert listed.returncode == 0 and results[-1]["kernel"] in listed.stdout.splitlines()
    schema = json.loads((server_process.ROOT / "bench/schema/sextant.benchmark.1.json").read_text())
    written = [json.loads(line) for line in records.read_text().splitlines()]
    assert [record["model_id"] for record in written] == ["kernel:" + row["kernel"] for row in results]
    for record in written:
        assert set(record) == set(schema["required"])
        assert record["test_conditions"]["load"] == "kernel" and record["metrics"]["tpot_ms"] is None


def test_kernels_that_there_are_not():
    for arguments, says in (("--filter", "nonsense"), "--list"), (("--isa", "avx9000"), "generic"), (("--min-time-s", "0"), "min-time-s"), (
            ("--record", "/nowhere/r.jsonl", "--filter", "silu_mul", "--min-time-s", "0.001"), "/nowhere"):
        process = server_process.sextant("bench", "kernels", *arguments)
        assert process.returncode == (1 if says == "/nowhere" else 2) and says in process.stderr, (arguments, process.stderr)


def test_a_limit_of_open_files_is_named(simulator):
    """More connections than the process may have descriptors for: one clear line before anything is sent."""
    process = subprocess.run(["bash", "-c", 'ulimit -n 200 && exec "$0" "$@"', str(server_process.BINARY), "bench", "serve", "--url", simulator,
                              "--max-concurrency", "500", "--num-prompts", "500", "--random-input-len", "4"], capture_output=True, text=True,
                             timeout=60, check=False)
    assert process.returncode == 2, process.stderr
    assert "ulimit -n" in process.stderr
