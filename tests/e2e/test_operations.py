"""What operators see: health, readiness, metrics, keys, start, stop, resources."""

import concurrent.futures
import http.client
import json
import pathlib
import re
import signal
import socket
import threading
import time

import openai
import pytest
from server_process import Server, model_id, sextant

LONG = {"prompt": "Once", "max_tokens": 400, "ignore_eos": True}


def test_health_ready_version(server):
    assert server.get("/health").status == 200
    assert server.get("/ready").status == 200
    version = sextant("version", "--json")
    assert server.get("/version").json["version"] == json.loads(version.stdout)["version"]


def test_models(server, client):
    models = client.models.list().data
    assert [model.id for model in models] == ["smollm2"]
    assert client.models.retrieve("smollm2").id == "smollm2"


def test_metrics_add_up(model):
    with Server(model) as server:
        name = model_id(server)
        client = server.client()
        for _ in range(3):
            answer = client.completions.create(model=name, prompt="Hello there", max_tokens=5, temperature=0,
                                               extra_body={"ignore_eos": True})
        list(client.completions.create(model=name, prompt="Hello there", max_tokens=5, stream=True, temperature=0,
                                       extra_body={"ignore_eos": True}))
        server.wait_metric("vllm:num_requests_running", 0)
        server.wait_metric("vllm:request_success_total", 4)
        metrics = server.metrics()
        assert server.metric("vllm:generation_tokens_total") == 20
        assert server.metric("vllm:prompt_tokens_total") == 4 * answer.usage.prompt_tokens
        assert server.metric("vllm:time_to_first_token_seconds_count") == 4
        assert server.metric("vllm:e2e_request_latency_seconds_count") == 4
        assert server.metric("vllm:kv_cache_usage_perc") == 0
        for (sample, labels), value in metrics.items():
            assert value == value, sample
            if sample.startswith("vllm:"):
                assert dict(labels).get("model_name") == name, (sample, labels)
        buckets = {float(dict(labels)["le"]) for (sample, labels) in metrics
                   if sample == "vllm:inter_token_latency_seconds_bucket"}
        assert min(buckets) < 0.01, "small models live below 10 ms"
        assert any(sample.startswith("llm_") for sample, _ in metrics)


def test_weights_are_in_memory_once(model):
    """Repacked weights, not the file beside them: at most 1.4 times the file and 48 MiB for the rest of the program."""
    with Server(model) as server:
        file_bytes = pathlib.Path(model).stat().st_size
        assert server.resident_bytes() <= 1.4 * file_bytes + (48 << 20)
        maps = pathlib.Path(f"/proc/{server.process.pid}/maps").read_text()
        assert str(pathlib.Path(model).resolve()) not in maps, "the file is still mapped"


def test_promtool_accepts_the_metrics(server):
    import shutil
    import subprocess

    if not shutil.which("promtool"):
        pytest.skip("promtool is not installed")
    checked = subprocess.run(["promtool", "check", "metrics"], input=server.get("/metrics").body, text=True,
                             capture_output=True, check=False)
    # Exit status 3: lint only, and vLLM's names with colons are not for us to change.
    assert checked.returncode in (0, 3), checked.stdout + checked.stderr


def test_api_key(model):
    with Server(model, env={"SEXTANT_API_KEY": "sk-right"}) as server:
        body = {"prompt": "Hi"}
        for method, path in (("GET", "/v1/models"), ("POST", "/v1/completions"), ("POST", "/v1/chat/completions"),
                             ("POST", "/tokenize"), ("POST", "/detokenize"), ("GET", "/v1/models/x")):
            for headers in ({}, {"Authorization": "Bearer sk-wrong"}, {"Authorization": "Basic sk-right"}):
                answer = server.request(method, path, body if method == "POST" else None, headers=headers)
                assert answer.status == 401, (path, headers)
                assert answer.error["code"] == "invalid_api_key"
        for path in ("/health", "/ready", "/metrics", "/version"):
            assert server.get(path).status == 200
        right = server.client(api_key="sk-right")
        assert right.completions.create(model=right.models.list().data[0].id, prompt="Hi", max_tokens=1).choices
        with pytest.raises(openai.AuthenticationError):
            server.client(api_key="sk-wrong").models.list()
        assert "sk-right" not in server.log()


def test_the_port_answers_while_loading_and_start_is_quick(model):
    starts = []
    while len(starts) < 5 and min(starts, default=2) >= 2:  # the first one brings the file into the page cache
        with Server(model) as warm:
            starts.append(warm.seconds_to_ready)
    assert min(starts) < 2, f"{starts} s to ready"
    with Server(model, wait=False) as server:
        server.wait_port()
        assert server.get("/health").status == 200
        seen = {server.get("/ready").status}
        refused = server.post("/v1/completions", {"model": "x", "prompt": "x"})
        assert refused.status in (503, 404)
        if refused.status == 503:
            assert "loading" in refused.error["message"]
        server.wait_ready()
        seen.add(server.get("/ready").status)
        assert 200 in seen
        assert re.search(r"ready at http://127\.0\.0\.1:\d+ \(model \S+, context 8192", server.log())


def test_the_memory_plan_is_printed_before_loading(server):
    log = server.log().lower()
    assert "weights" in log and "kv cache" in log and "workspace" in log
    assert log.index("kv cache") < log.index("ready at")


def test_idle_costs_nothing(server):
    time.sleep(0.5)
    windows = []
    while len(windows) < 4 and min(windows, default=1) > 0.04:  # interrupts of others may be charged to one
        before = server.cpu_seconds()
        time.sleep(4)
        windows.append(server.cpu_seconds() - before)
    assert min(windows) <= 0.04, f"an idle process must stay under 1% of a core: {windows} s in 4 s"


def stream_lines(server, body, lines, failed):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        while line := response.readline():
            lines.append(line)
    except (OSError, http.client.HTTPException) as error:
        failed.append(error)
    finally:
        connection.close()


def start_streams(server, number, **fields):
    body = {"model": model_id(server), **LONG, "stream": True, **fields}
    runs = []
    for _ in range(number):
        lines, failed = [], []
        thread = threading.Thread(target=stream_lines, args=(server, body, lines, failed))
        thread.start()
        runs.append((thread, lines, failed))
    deadline = time.monotonic() + 30
    while not all(lines for _, lines, _ in runs):
        assert time.monotonic() < deadline, "the streams did not begin"
        time.sleep(0.01)
    return runs


def test_sigterm_lets_streams_finish(model):
    with Server(model) as server:
        runs = start_streams(server, 3, max_tokens=400)
        server.terminate()
        deadline = time.monotonic() + 5
        while server.get("/ready").status != 503:
            assert time.monotonic() < deadline
        refused = server.post("/v1/completions", {"model": "x", "prompt": "x"})
        assert refused.status == 503 and "retry-after" in refused.headers
        for thread, lines, failed in runs:
            thread.join(60)
            assert not failed
            assert lines[-2].strip() == b"data: [DONE]" or lines[-1].strip() == b"data: [DONE]", lines[-3:]
        assert server.wait_end() == 0
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", server.port), timeout=2)


def test_the_shutdown_timeout_cuts_the_rest(model):
    with Server(model, "--shutdown-timeout", "1") as server:
        runs = start_streams(server, 2, max_tokens=7000)
        begin = time.monotonic()
        server.terminate()
        assert server.wait_end() == 0
        assert 0.9 < time.monotonic() - begin < 15
        for thread, lines, _ in runs:
            thread.join(10)
            assert not any(b"[DONE]" in line for line in lines), "what was cut must not look complete"


def test_a_second_signal_ends_at_once(model):
    with Server(model) as server:
        runs = start_streams(server, 1, max_tokens=7000)
        server.terminate(signal.SIGINT)
        time.sleep(0.3)
        server.terminate(signal.SIGINT)
        assert server.wait_end(5) == 130
        for thread, _, _ in runs:
            thread.join(10)


def test_idle_connections_do_not_hold_a_stop_up(model):
    with Server(model) as server:
        idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(5)]
        begin = time.monotonic()
        server.terminate()
        assert server.wait_end() == 0
        assert time.monotonic() - begin < 5
        for connection in idle:
            connection.close()


def test_sigterm_while_loading(model):
    with Server(model, wait=False) as server:
        server.wait_port()
        server.terminate()
        assert server.wait_end(10) == 0


def test_a_taken_port_says_so(server, model):
    started = sextant("serve", model, "--port", server.port)
    assert started.returncode == 1
    assert str(server.port) in started.stderr
    assert "--port" in started.stderr or "in use" in started.stderr


@pytest.mark.parametrize("share", [0.0, 0.00001, 0.3, 0.999])
def test_a_truncated_model_is_a_message_and_exit_1(model, tmp_path, share):
    data = model.read_bytes()
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(data[: int(len(data) * share)])
    started = sextant("serve", broken, "--port", 0)
    assert started.returncode == 1, started.stderr
    assert "broken.gguf" in started.stderr
    assert "ready at" not in started.stderr


def test_files_that_are_no_model(tmp_path):
    for name, content in (("text.gguf", b"hello"), ("zero.gguf", b"\0" * 4096), ("huge.gguf", b"GGUF\x03\0\0\0" + b"\xff" * 64)):
        path = tmp_path / name
        path.write_bytes(content)
        started = sextant("serve", path, "--port", 0)
        assert started.returncode == 1, started.stderr
        assert name in started.stderr
    (tmp_path / "empty").mkdir()
    started = sextant("serve", tmp_path / "empty", "--port", 0)
    assert started.returncode == 1 and "empty" in started.stderr


def test_a_model_too_large_for_memory_says_what_would_fit(model):
    started = sextant("serve", model, "--port", 0, "--kv-cache-memory-bytes", "64K")
    assert started.returncode == 1
    assert re.search(r"\d", started.stderr)
    started = sextant("serve", model, "--port", 0, "--kv-cache-memory-bytes", "900T")
    assert started.returncode in (1, 2), started.stderr


def test_a_hostile_chat_template_is_a_message(model, tmp_path):
    template = tmp_path / "bad.jinja"
    template.write_text("{% for x in %}")
    started = sextant("serve", model, "--port", 0, "--chat-template", template)
    assert started.returncode == 1
    assert "bad.jinja" in started.stderr and "line 1" in started.stderr


def test_truncating_the_file_while_serving_changes_nothing(model, tmp_path):
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(model.read_bytes())
    with Server(copy) as server:
        body = {"model": "copy", "prompt": "Once upon a time", "max_tokens": 8, "temperature": 0}
        before = server.post("/v1/completions", body).json["choices"][0]["text"]
        copy.write_bytes(b"")
        body["prompt"] = ["Once upon a time", "Something else"]
        assert server.post("/v1/completions", body).json["choices"][0]["text"] == before


def test_client_gone_frees_its_blocks(model):
    with Server(model) as server:
        body = json.dumps({"model": model_id(server), **LONG, "max_tokens": 7000, "stream": True})
        connections = []
        for _ in range(4):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
            connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            assert response.status == 200
            response.readline()
            connections.append((connection, response))
        assert server.metric("vllm:kv_cache_usage_perc") > 0
        for connection, response in connections:
            response.close()
            connection.close()
        server.wait_metric("vllm:num_requests_running", 0, timeout_s=5)
        server.wait_metric("vllm:kv_cache_usage_perc", 0, timeout_s=5)


def test_a_client_gone_without_streaming_frees_its_blocks(model):
    with Server(model) as server:
        body = json.dumps({"model": model_id(server), **LONG, "max_tokens": 7000}).encode()
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                               b"Content-Length: %d\r\n\r\n" % len(body) + body)
            server.wait_metric("vllm:num_requests_running", 1)
        server.wait_metric("vllm:num_requests_running", 0, timeout_s=5)


def test_a_client_that_does_not_read_stops_only_itself(model):
    with Server(model) as server:
        body = json.dumps({"model": model_id(server), **LONG, "max_tokens": 3000, "stream": True, "logprobs": 5}).encode()
        with socket.socket() as lazy:
            lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            lazy.connect(("127.0.0.1", server.port))
            lazy.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                         b"Content-Length: %d\r\n\r\n" % len(body) + body)
            time.sleep(1)
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                quick = {"model": model_id(server), "prompt": "Hi", "max_tokens": 20}
                answers = list(pool.map(lambda _: server.post("/v1/completions", quick), range(8)))
            assert [answer.status for answer in answers] == [200] * 8


def test_json_log_lines(model):
    with Server(model, "--log-format", "json", "--log-level", "debug") as server:
        server.get("/health")
        time.sleep(0.1)
        lines = server.log().splitlines()
        assert all({"time", "level", "message"} <= set(json.loads(line)) for line in lines)
        assert any("/health" in json.loads(line)["message"] for line in lines)
