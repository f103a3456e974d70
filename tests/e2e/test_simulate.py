"""`sextant simulate`: the real server over a device that is not there. Bounds on times are those that no load of the test
machine can break: a token never comes early."""

import json

import pytest
from server_process import Server, sextant


@pytest.fixture(scope="module")
def trace_path(tmp_path_factory):
    return tmp_path_factory.mktemp("simulate") / "trace.jsonl"


@pytest.fixture(scope="module")
def simulator(trace_path):
    with Server(None, "--time", "constant:ttft=60ms,tpot=5ms", "--trace-file", trace_path, verb="simulate") as running:
        yield running


def stream(simulator, **fields):
    with simulator.client() as client:
        return list(client.completions.create(model="bytes", prompt="What is this?", stream=True,
                                              extra_body={"ignore_eos": True, **fields.pop("extra_body", {})}, **fields))


def test_the_trace_holds_every_token_and_none_is_early(simulator, trace_path):
    chunks = stream(simulator, max_tokens=30, seed=1, stream_options={"include_usage": True})
    assert chunks[-1].usage.completion_tokens == 30
    request_id = chunks[0].id.removeprefix("cmpl-")
    events = [event for event in map(json.loads, trace_path.read_text().splitlines()) if event["id"] == request_id]
    assert [event["event"] for event in events][0] == "request" and events[-1]["event"] == "end"
    writes = [event for event in events if event["event"] == "write"]
    assert sum(event["tokens"] for event in writes) == 30
    num_tokens = 0
    for event in writes:
        if event["tokens"]:
            num_tokens += event["tokens"]
            # The last token of this write was due then.
            assert event["t_ns"] - events[0]["t_ns"] >= 60e6 + (num_tokens - 1) * 5e6 - 1
    times = [event["t_ns"] for event in events]
    assert times == sorted(times)


def test_the_same_seed_says_the_same_and_use_cases_differ(simulator):
    def say(**fields):
        return "".join(chunk.choices[0].text for chunk in stream(simulator, **fields))
    assert say(max_tokens=20, seed=4) == say(max_tokens=20, seed=4)
    with simulator.client() as client:
        def chat(text):
            answer = client.chat.completions.create(model="bytes", messages=[{"role": "user", "content": text}],
                                                    max_tokens=80, seed=2)
            return answer.choices[0].message.content
        assert "python" in chat("Write a Python function").lower()
        assert chat("Write a Python function") != chat("Please summarise this article")


def test_an_answer_ends_by_itself(simulator):
    with simulator.client() as client:
        answer = client.chat.completions.create(model="bytes", messages=[{"role": "user", "content": "Hello!"}],
                                                extra_body={"min_tokens": 10})
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content.endswith("\n")


def test_health_metrics_and_models_are_the_servers(simulator):
    assert simulator.get("/health").status == 200
    before = simulator.metric("vllm:generation_tokens_total")
    stream(simulator, max_tokens=7)
    simulator.wait_metric("vllm:generation_tokens_total", before + 7)
    assert simulator.get("/v1/models").json["data"][0]["id"] == "bytes"


def test_sigterm_ends_it_cleanly():
    with Server(None, "--time", "constant:ttft=3600s,tpot=3600s", "--shutdown-timeout", "0", verb="simulate",
                env={"MODEL_NAME": "some/model"}) as running:
        assert running.get("/v1/models").json["data"][0]["id"] == "some/model"
        running.terminate()
        assert running.wait_end() == 0


def test_printed_config_reads_back_the_same(tmp_path):
    printed = sextant("simulate", "--print-config", "--time", "constant:ttft=1ms,tpot=1ms", "--port", "1234")
    assert printed.returncode == 0 and json.loads(printed.stdout)["time"] == "constant:ttft=1ms,tpot=1ms"
    path = tmp_path / "config.json"
    path.write_text(printed.stdout)
    assert sextant("simulate", "--config", path, "--print-config").stdout == printed.stdout


@pytest.mark.parametrize("arguments, says", [
    (["--time", "constant:ttft=200,tpot=50ms"], "--time 'ttft' must be a duration"),
    (["--time", "konstant"], "begins with none of constant, roofline, record"),
    (["--model", "/nonexistent"], "'/nonexistent' does not exist"),
    (["--trace-file", "/nonexistent/trace"], "--trace-file '/nonexistent/trace' cannot be written"),
    (["--max-model-len", "1000000000"], "max-model-len"),
    (["--tme=x"], "did you mean --time?"),
])
def test_bad_input_is_one_line_and_exit_2(arguments, says):
    ended = sextant("simulate", *arguments, "--port", "0")
    assert ended.returncode == 2, ended.stderr
    assert says in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def config_directory(tmp_path, **fields):
    shape = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 32000, "hidden_size": 4096,
             "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
             "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": False,
             "torch_dtype": "bfloat16"}
    (tmp_path / "config.json").write_text(json.dumps({**shape, **fields}))
    return tmp_path


def virtual(*arguments, **options):
    ended = sextant("simulate", *arguments, "--virtual-time", "--json", **options)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_virtual_time_repeats_itself_and_its_records_say_simulated(tmp_path):
    model = config_directory(tmp_path)
    records = tmp_path / "records.jsonl"
    arguments = (model, "--time", "roofline:compute=50%,bandwidth=70%,jitter=10%", "--gpu-type", "A100-80GB",
                 "--request-rate", "5", "--num-requests", "300", "--record", records)
    first, second = virtual(*arguments), virtual(*arguments)
    for run in (first, second):
        assert run["record"]["source"] == "simulated" and run["record"]["gpu_type"] == "A100-SXM4-80GB"
    assert first["record"]["metrics"] == second["record"]["metrics"]
    assert [json.loads(line)["source"] for line in records.read_text().splitlines()] == ["simulated", "simulated"]
    # Simulated records never stand in for measured ones.
    refused = sextant("simulate", "--benchmarks", records)
    assert refused.returncode == 2 and "holds no measured record" in refused.stderr


def planner_entry(concurrency, tpot_ms):
    return {"model_id": "some/model", "gpu_type": "NVIDIA-L4", "tensor_parallel_degree": 2,
            "metrics": {"ttft_p50_ms": 90, "tpot_p50_ms": tpot_ms, "tpot_p90_ms": tpot_ms * 1.2},
            "test_conditions": {"prompt_length_avg": 150, "generation_length_avg": 200, "concurrency": concurrency}}


def test_recorded_times_come_back(tmp_path):
    path = tmp_path / "benchmarks.json"
    path.write_text(json.dumps([planner_entry(1, 20), planner_entry(8, 22), planner_entry(32, 30)]))
    environment = {"MODEL_NAME": "some/model", "GPU_TYPE": "L4", "TENSOR_PARALLEL_SIZE": "2", "BENCHMARKS_PATH": str(path)}
    run = virtual("--concurrency", "8", "--prompt-tokens", "150", "--output-tokens", "200", env=environment)
    assert run["record"]["metrics"]["tpot_ms"]["p50"] == pytest.approx(22, rel=0.1)
    assert run["record"]["tensor_parallel"] == 2 and run["record"]["model_id"] == "some/model"
    other = sextant("simulate", env={**environment, "GPU_TYPE": "T4"})
    assert other.returncode == 2 and "has nothing for model 'some/model' on 'T4'" in other.stderr
    with Server(None, verb="simulate", env=environment) as running:
        assert running.get("/v1/models").json["data"][0]["id"] == "some/model"
        assert "fitted to 3 records" in running.log()


def test_what_cannot_be_is_one_line_and_exit_2(tmp_path):
    model = config_directory(tmp_path)
    broken = tmp_path / "broken.json"
    broken.write_text('[{"model_id": 5}]')
    for arguments, says in [
        ((config_directory(tmp_path, num_hidden_layers=80), "--gpu-type", "T4"), "cannot hold it"),
        ((model, "--gpu-type", "H1000"), "'H1000' is not known"),
        ((model, "--time", "roofline"), "--gpu-type is required"),
        (("--time", "roofline:gpu=L4"), "--model is required"),
        (("--time", "record"), "--benchmarks is required"),
        (("--benchmarks", "/nonexistent"), "/nonexistent"),
        (("--benchmarks", broken), "entry 0"),
        ((model, "--gpu-type", "A100-80GB", "--tensor-parallel-size", "3"), "does not divide"),
        (("--virtual-time", "--num-requests", "0"), "--num-requests must be between"),
        (("--virtual-time", "--prompt-tokens", "200000"), "max_model_len"),
    ]:
        ended = sextant("simulate", *arguments)
        assert ended.returncode == 2, (arguments, ended.stderr)
        assert says in ended.stderr and len(ended.stderr.splitlines()) == 1, ended.stderr


def test_the_engine_is_measured_without_http(tmp_path):
    records = tmp_path / "records.jsonl"
    measured = sextant("bench", "engine", "--shape", "tiny", "--device", "cpu", "--json", "--record", records)
    assert measured.returncode == 0, measured.stderr
    cases = {line["engine_case"]: line for line in map(json.loads, measured.stdout.splitlines())}
    assert cases["load"]["roof_gb_per_s"] > 0 and cases["decode/3/24"]["roof_pct"] > 0
    for line in map(json.loads, records.read_text().splitlines()):
        assert line["source"] == "measured" and line["test_conditions"]["load"] == "batch" and line["engine"] == "sextant"
    for arguments, says in [
        ((), "model is required"),
        (("--shape", "huge"), "--shape must be llama-8b or tiny"),
        (("/nonexistent.gguf",), "does not exist"),
        (("--shape", "tiny", "--batches", "1,,2"), "--batches must be whole numbers"),
        (("--shape", "tiny", "--device", "abacus"), "--device must be one of"),
        (("--replay", "/nonexistent"), "/nonexistent"),
        (("--replay", records), "sextant bench engine:"),
    ]:
        refused = sextant("bench", "engine", *arguments)
        assert refused.returncode == 2 and says in refused.stderr, (arguments, refused.stderr)
