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
