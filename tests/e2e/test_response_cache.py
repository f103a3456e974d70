"""The response cache: what it keeps, for whom, in which forms, and what it says of itself; and other series that a setting brings."""

import json
import re
import shutil
import subprocess

import pytest
from server_process import Server
from websocket_client import WebSocket

TIMES = ("--time", "constant:ttft=1ms,tpot=1ms")
BODY = {"prompt": "Once upon", "max_tokens": 9, "temperature": 0}

# What promtool may complain of: names that are vLLM's or that requirements fix, not ours to change.
ALLOWED_LINT = [
    r"^(vllm|sextant):\S+ metric names should not contain ':'$",
    r"^llm_throughput_tokens_per_sec ",          # requirement 002
    r"^vllm:\S+ (non-counter metrics should not have \"_total\" suffix|counter metrics should have \"_total\" suffix)",
    r"^\S+_perc .*",                             # vllm:kv_cache_usage_perc: a ratio
]


@pytest.fixture(scope="module")
def cached():
    with Server(None, *TIMES, "--response-cache-bytes", "1M", "--price-usd-per-hour", 3.6, verb="simulate") as server:
        yield server


def ask(server, body, path="/v1/completions", **options):
    answer = server.post(path, body, **options)
    assert answer.status == 200, answer.body
    return answer


def test_a_hit_is_the_same_answer_without_the_engine(cached):
    first = ask(cached, BODY)
    assert first.headers["x-cache"] == "miss"
    cached.wait_metric("llm_requests_in_flight", 0)
    steps = cached.metric("vllm:e2e_request_latency_seconds_count")
    second = ask(cached, BODY)
    assert second.headers["x-cache"] == "hit"
    assert second.json["choices"] == first.json["choices"] and second.json["usage"] == first.json["usage"]
    assert second.json["id"] != first.json["id"]
    assert cached.metric("vllm:e2e_request_latency_seconds_count") == steps
    assert cached.metric("response_cache_hits_total") >= 1 and cached.metric("response_cache_bytes") > 0


def test_every_form_shares_it(cached):
    body = {**BODY, "prompt": "In every form"}
    text = ask(cached, body).json["choices"][0]["text"]
    streamed = ask(cached, {**body, "stream": True})
    assert streamed.headers["x-cache"] == "hit" and streamed.body.endswith("data: [DONE]\n\n")
    events = [json.loads(line[6:]) for line in streamed.body.splitlines() if line.startswith("data: {")]
    assert "".join(event["choices"][0]["text"] for event in events) == text
    assert events[-1]["choices"][0]["finish_reason"] == "length"
    lines = ask(cached, body, "/v1/stream")
    assert lines.headers["x-cache"] == "hit" and json.loads(lines.body.splitlines()[0])["delta"] == text
    assert ask(cached, body, "/generate").json["response"] == text
    with WebSocket(cached.port) as stream:
        stream.send(body)
        assert stream.receive_answer()[0]["delta"] == text
    # And the other way round: an answer that was first streamed.
    other = {**body, "prompt": "Streamed first", "stream": True}
    assert ask(cached, other).headers["x-cache"] == "miss"
    assert ask(cached, {**other, "stream": False}).headers["x-cache"] == "hit"


@pytest.mark.parametrize("body", [{"prompt": "a", "max_tokens": 3}, {**BODY, "logprobs": 1}, {**BODY, "prompt_logprobs": 1}])
def test_what_is_not_determined_is_not_kept(cached, body):
    if "prompt_logprobs" in body or "logprobs" in body:
        answer = cached.post("/v1/completions", body)  # the simulator may have none
        assert "x-cache" not in answer.headers
    else:
        for _ in range(2):
            assert "x-cache" not in ask(cached, body).headers


def test_a_cancelled_answer_is_not_kept(cached):
    body = {"prompt": "cut short", "max_tokens": 50_000, "temperature": 0, "ignore_eos": True}
    with WebSocket(cached.port) as stream:
        stream.send(body)
        stream.receive()
        stream.send({"cancel": True})
        assert stream.receive_answer()[-1]["finish_reason"] == "abort"
    hits = cached.metric("response_cache_hits_total")
    with WebSocket(cached.port) as stream:
        stream.send(body)
        stream.receive()
        assert cached.metric("response_cache_hits_total") == hits


def test_off_by_default():
    with Server(None, *TIMES, verb="simulate") as server:
        for _ in range(2):
            assert "x-cache" not in ask(server, BODY).headers
        names = {name for name, _ in server.metrics()}
        assert not any(name.startswith(("response_cache", "llm_cost")) for name in names)


def test_a_model_s_own_answers(model):
    with Server(model, "--response-cache-bytes", "1M", "--served-model-name", "m") as server:
        chat = {"messages": [{"role": "user", "content": "Say hi"}], "max_tokens": 8, "temperature": 0.9, "seed": 3, "n": 2,
                "stop": ["zzz"]}
        first = ask(server, chat, "/v1/chat/completions")
        second = ask(server, chat, "/v1/chat/completions")
        assert (first.headers["x-cache"], second.headers["x-cache"]) == ("miss", "hit")
        assert first.json["choices"] == second.json["choices"] and first.json["usage"] == second.json["usage"]
        assert ask(server, {**chat, "seed": 4}, "/v1/chat/completions").headers["x-cache"] == "miss"


def test_cost_and_startup(cached):
    ask(cached, {"prompt": "x", "max_tokens": 5})
    first = cached.metric("llm_cost_usd_total")
    assert first > 0 and cached.metric("llm_cost_usd_per_1k_tokens") > 0
    assert cached.metric("llm_cost_usd_total") >= first
    phases = {dict(labels)["phase"]: value for (name, labels), value in cached.metrics().items() if name == "startup_time_seconds"}
    assert set(phases) == {"listen", "tokenizer", "model", "api", "total"}
    assert phases["total"] >= max(value for phase, value in phases.items() if phase != "total")
    with WebSocket(cached.port):
        assert cached.metric("http_connections_active") >= 2  # this one and the scrape's own
    assert cached.metric("sextant:step_host_overhead_ratio_count") > 0


def test_promtool_reads_the_metrics(cached):
    promtool = shutil.which("promtool")
    assert promtool, "Debian's prometheus has it (deploy/install-deps.sh --test)"
    ask(cached, BODY)
    checked = subprocess.run([promtool, "check", "metrics"], input=cached.get("/metrics").body, capture_output=True, text=True,
                             timeout=60, check=False)
    complaints = [line for line in (checked.stdout + checked.stderr).splitlines() if line]
    assert not any("error while linting" in line for line in complaints), complaints
    unexpected = [line for line in complaints if not any(re.search(allowed, line) for allowed in ALLOWED_LINT)]
    assert not unexpected, "\n".join(unexpected)
    assert checked.returncode in (0, 3)
