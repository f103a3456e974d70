"""`sextant route` in front of real servers (simulated engines), with backends that die, hang, lie and come back."""

import collections
import concurrent.futures
import contextlib
import http.client
import http.server
import json
import os
import pathlib
import signal
import socket
import threading
import time

import openai
import pytest
import server_process
import websocket_client

TIMES = "constant:ttft=20ms,tpot=5ms"
QUICK = {"probe": {"interval_s": 0.2, "timeout_s": 1, "up_after": 1, "down_after": 2}, "slow_start_s": 0}


def backend(*arguments, times=TIMES, model="m", **options):
    return server_process.Server(None, "--time", times, "--served-model-name", model, *arguments, verb="simulate", **options)


@contextlib.contextmanager
def router(tmp_path, pools, *arguments, **options):
    path = tmp_path / "pools.json"
    path.write_text(json.dumps({"pools": pools}))
    with server_process.Server(None, "--config", path, *arguments, verb="route", **options) as running:
        yield running


def pool(*members, **more):
    return {"model": "m", "members": [server.url if hasattr(server, "url") else server for server in members], **QUICK, **more}


def wait_for(condition, timeout_s=30):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def states(route, index=0):
    members = route.get("/admin/v1/pools").json["pools"][index]["members"]
    return {int(member["member"].rsplit(":", 1)[1]): member for member in members}


def complete(route, **more):
    return route.post("/v1/completions", {"model": "m", "prompt": "hello", "max_tokens": 4, **more})


class Liar:
    """A backend that answers as a test wants: `answer(handler)` for POST; probes get `health`."""

    def __init__(self, answer, health=200):
        self.num_requests = 0
        self.health = health
        liar = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def say(self, status, body=b"{}", headers=()):
                self.send_response(status)
                for name, value in (("Content-Type", "application/json"), ("Content-Length", str(len(body))), *headers):
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                self.say(liar.health)

            def do_POST(self):
                liar.num_requests += 1
                self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                liar.answer(self)

        self.answer = answer
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def test_what_clients_ask_is_passed_on(tmp_path):
    with backend() as one, backend() as two, router(tmp_path, [pool(one, two, aliases=["other-name"])]) as route:
        wait_for(lambda: all(member["state"] == "up" for member in states(route).values()))
        client = route.client()
        assert {entry.id for entry in client.models.list().data} == {"m", "other-name"}
        whole = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}], max_tokens=8)
        streamed = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}], max_tokens=8, stream=True,
                                                  stream_options={"include_usage": True})
        chunks = list(streamed)
        assert len("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)) == len(whole.choices[0].message.content)
        assert complete(route, model="other-name").json["model"] == "m"  # the name that its servers know
        assert chunks[-1].usage.completion_tokens == 8
        lines = route.post("/v1/stream", {"model": "m", "prompt": "x", "max_tokens": 3}).body.splitlines()
        assert json.loads(lines[-1])["finish_reason"] == "length"
        assert route.post("/tokenize", {"model": "m", "prompt": "abc"}).json["count"] > 0
        answer = route.request("POST", "/v1/completions", {"model": "m", "prompt": "x", "max_tokens": 1},
                               headers={"X-Request-Id": "mine-1", "Content-Type": "application/json"})
        assert answer.headers["x-request-id"] == "mine-1"
        # What the server behind refuses, it refuses in its own words; what cannot be routed is refused here.
        assert complete(route, temperature=-1).error["param"] == "temperature"
        assert (complete(route, model="nobody").status, complete(route, model="nobody").error["code"]) == (404, "model_not_found")
        assert route.post("/v1/completions", "[1").status == 400
        assert route.get("/v1/completions").status == 405
        assert route.get("/nowhere").status == 404
        with concurrent.futures.ThreadPoolExecutor(16) as threads:
            assert {answer.status for answer in threads.map(lambda _: complete(route), range(64))} == {200}
        requests = [member["requests"] for member in states(route).values()]
        assert min(requests) > sum(requests) / 4, requests
        assert route.metrics()  # parses


def test_a_killed_backend_breaks_only_streams_that_had_begun(tmp_path):
    with backend(times="constant:ttft=300ms,tpot=30ms") as one, backend(times="constant:ttft=300ms,tpot=30ms") as two, \
            router(tmp_path, [pool(one, two, policy="least_connections")]) as route:
        wait_for(lambda: all(member["state"] == "up" for member in states(route).values()))
        begun, results = collections.Counter(), []
        lock = threading.Lock()

        def stream(i):
            if i >= 20:  # half of them are still before their first byte when the backend goes
                wait_for(lambda: len(begun) >= 20)
            events, end = [], None
            try:
                for chunk in route.client().completions.create(model="m", prompt=f"{i}", max_tokens=100, stream=True):
                    with lock:
                        begun[i] += 1
                    events.append(chunk)
                end = events[-1].choices[0].finish_reason
            except openai.APIError as error:
                end = error
            except Exception as error:  # noqa: BLE001  (a torn connection has many names)
                end = error
            results.append((i, len(events), end))

        threads = [threading.Thread(target=stream, args=(i,)) for i in range(40)]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(begun) >= 20)
        wait_for(lambda: sum(member["requests_running"] for member in states(route).values()) == 40)
        one.process.kill()
        for thread in threads:
            thread.join()
        assert len(results) == 40
        failed = {i for i, _, end in results if end != "length"}
        assert 5 <= len(failed) <= 20, failed
        for i, num_events, end in results:
            if i in failed:
                assert num_events > 0 and "lost" in str(end), (i, end)
            else:
                assert num_events == 100 or num_events == 101, num_events
        assert route.metric("sextant:router_broken_streams_total") == len(failed)
        assert route.metric("sextant:router_retries_total") >= 1  # those that had not begun
        wait_for(lambda: states(route)[one.port]["state"] in ("down", "ejected"))
        assert complete(route).status == 200


def test_all_backends_down_is_said_at_once_and_they_come_back(tmp_path):
    with backend() as one, router(tmp_path, [pool(one)]) as route:
        assert complete(route).status == 200
        port = one.port
        one.kill()
        wait_for(lambda: states(route)[port]["state"] in ("down", "ejected"))
        begin = time.monotonic()
        answer = complete(route)
        assert answer.status == 503 and answer.error["code"] == "no_server" and int(answer.headers["retry-after"]) >= 1
        assert time.monotonic() - begin < 5
        assert route.get("/health").status == 200
        with backend("--port", str(port)):
            wait_for(lambda: complete(route).status == 200)


@pytest.mark.parametrize("manner", ["500", "hangs", "closes", "garbage", "slow"])
def test_a_bad_backend_is_ejected_and_comes_back(tmp_path, manner):
    release = threading.Event()
    well = threading.Event()

    def answer(handler):
        if well.is_set():
            return handler.say(200, b'{"choices":[]}')
        if manner == "500":
            return handler.say(500, b'{"error":{"message":"oh"}}')
        if manner == "hangs":
            release.wait(60)
        elif manner == "garbage":
            handler.wfile.write(b"\x00\x01not http at all\r\n\r\n")
        elif manner == "slow":
            time.sleep(0.6)
            return handler.say(200, b'{"choices":[]}')
        handler.close_connection = True

    more = {"ejection": {"consecutive_failures": 3, "base_s": 0.5, "slow_ratio": 3, "slow_floor_ms": 100}, "first_byte_timeout_s": 0.5 if manner == "hangs" else 60}
    with Liar(answer) as bad, backend() as good, router(tmp_path, [pool(bad, good, policy="least_connections", **more)]) as route:
        wait_for(lambda: all(member["state"] == "up" for member in states(route).values()))
        statuses = collections.Counter()
        deadline = time.monotonic() + 60
        while states(route)[bad.port]["ejections"] == 0:
            with concurrent.futures.ThreadPoolExecutor(32) as threads:
                statuses.update(answer.status for answer in threads.map(lambda _: complete(route), range(64)))
            assert time.monotonic() < deadline, (statuses, states(route))
        # 500 is an answer, which the client gets; all else is taken to the other one.
        assert set(statuses) <= ({200, 500} if manner == "500" else {200}), statuses
        assert states(route)[bad.port]["reason"]
        well.set()
        release.set()
        wait_for(lambda: complete(route).status == 200 and states(route)[bad.port]["state"] == "up", 60)


def test_busy_servers_send_requests_to_others_within_the_budget(tmp_path):
    def answer(handler):
        handler.say(503, b'{"error":{"message":"full"}}', [("Retry-After", "7")])

    with Liar(answer) as busy, Liar(answer) as busier, backend() as good:
        with router(tmp_path, [pool(busy, good, policy="least_connections")]) as route:
            wait_for(lambda: all(member["state"] == "up" for member in states(route).values()))
            assert {complete(route).status for _ in range(40)} == {200}
            assert states(route)[busy.port]["state"] == "up"  # it lives
        with router(tmp_path, [pool(busy, busier, retry_burst=10, retry_ratio=0.1)]) as route:
            wait_for(lambda: all(member["state"] == "up" for member in states(route).values()))
            before = busy.num_requests + busier.num_requests
            answers = [complete(route) for _ in range(200)]
            assert {answer.status for answer in answers} == {503}
            assert int(answers[0].headers["retry-after"]) == 7
            assert 200 < busy.num_requests + busier.num_requests - before <= 200 * 1.1 + 10


def test_members_that_hang_lose_their_waiting_requests_to_others(tmp_path):
    with backend() as one, backend() as two, router(tmp_path, [pool(one, two, policy="least_connections")]) as route:
        wait_for(lambda: all(member["state"] == "up" for member in states(route).values()))
        os.kill(one.process.pid, signal.SIGSTOP)
        try:
            with concurrent.futures.ThreadPoolExecutor(8) as threads:
                assert {answer.status for answer in threads.map(lambda _: complete(route), range(8))} == {200}
            wait_for(lambda: states(route)[one.port]["state"] == "down")
            assert "time" in states(route)[one.port]["reason"]
        finally:
            os.kill(one.process.pid, signal.SIGCONT)
        wait_for(lambda: states(route)[one.port]["state"] == "up")


def test_another_pool_takes_over_with_its_own_name_and_key(tmp_path):
    seen = []

    def answer(handler):
        seen.append((handler.headers.get("Authorization"), json.loads(handler.body)["model"]))
        handler.say(200, b'{"choices":[]}')

    with Liar(answer) as far, backend() as near:
        pools = [pool(near, failover="far", region="eu"), pool(far, name="far", upstream_model="M/2", api_key_env="FAR_KEY", region="us")]
        with router(tmp_path, pools, env={"FAR_KEY": "secret-of-far"}) as route:
            assert complete(route).json["choices"]
            assert not seen
            near.kill()
            wait_for(lambda: complete(route).status == 200 and seen)
            assert seen[-1] == ("Bearer secret-of-far", "M/2")
            for text in (route.log(), route.get("/metrics").body, route.get("/admin/v1/pools").body):
                assert "secret-of-far" not in text


def test_members_of_a_file_come_and_go(tmp_path):
    members = tmp_path / "members"
    with backend() as one, backend() as two:
        members.write_text(f"# the first\n{one.url}\n")
        with router(tmp_path, [{"model": "m", "members_file": str(members), "discovery_interval_s": 0.1, **QUICK}]) as route:
            assert complete(route).status == 200
            members.write_text(f"{two.url}/\n")
            wait_for(lambda: list(states(route)) == [two.port] and states(route)[two.port]["state"] == "up")
            assert complete(route).status == 200
            for wrong in ("", "not an endpoint\n", f"{one.url}\nhttps://x:1\n"):
                members.write_text(wrong)
                wait_for(lambda: "its members stay as they are" in route.log())
                assert list(states(route)) == [two.port]
                assert complete(route).status == 200
        missing = tmp_path / "missing"
        path = tmp_path / "pools.json"
        path.write_text(json.dumps({"pools": [{"model": "m", "members_file": str(missing)}]}))
        run = server_process.sextant("route", "--config", path, "--port", "0")
        assert run.returncode != 0 and "missing" in run.stderr


def test_members_of_a_name(tmp_path):
    with backend() as one, router(tmp_path, [{"model": "m", "members_dns": f"localhost:{one.port}", "discovery_interval_s": 0.1, **QUICK}]) as route:
        assert complete(route).status == 200


def test_prefix_affinity_keeps_conversations_together(tmp_path):
    """Hit rates of the servers' own prefix caches, the same load twice; and nobody has far more than others."""
    systems = [f"System prompt number {i}. " * 40 for i in range(12)]

    def run(policy):
        with backend() as one, backend() as two, backend() as three, router(tmp_path, [pool(one, two, three, policy=policy)]) as route:
            wait_for(lambda: all(member["state"] == "up" for member in states(route).values()))
            with concurrent.futures.ThreadPoolExecutor(8) as threads:
                answers = threads.map(lambda i: complete(route, prompt=systems[i % 12] + f" question {i}"), range(240))
                assert {answer.status for answer in answers} == {200}
            servers = (one, two, three)
            hits = sum(server.metric("vllm:prefix_cache_hits_total") for server in servers)
            queries = sum(server.metric("vllm:prefix_cache_queries_total") for server in servers)
            requests = [member["requests"] for member in states(route).values()]
            return hits / queries, max(requests) / (sum(requests) / 3)

    least, _ = run("least_tokens")
    affine, imbalance = run("prefix_affinity")
    assert affine > least, (affine, least)
    assert imbalance <= 1.5, imbalance


def test_a_thousand_streams_at_once(tmp_path):
    more = ("--max-connections", "3000", "--max-num-queued-reqs", "3000")
    with backend(*more) as one, backend(*more) as two, router(tmp_path, [pool(one, two, policy="least_connections")], "--max-connections", "3000") as route:
        wait_for(lambda: all(member["state"] == "up" for member in states(route).values()))
        body = json.dumps({"model": "m", "prompt": "x", "max_tokens": 5, "stream": True}).encode()
        text = (f"POST /v1/completions HTTP/1.1\r\nHost: r\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n").encode() + body
        sockets = [socket.create_connection(("127.0.0.1", route.port), timeout=120) for _ in range(1000)]
        for connection in sockets:
            connection.sendall(text)
        num_done = 0
        for connection in sockets:
            with connection:
                answer = b""
                while piece := connection.recv(65536):
                    answer += piece
                num_done += answer.startswith(b"HTTP/1.1 200") and b"data: [DONE]" in answer
        assert num_done == 1000
        assert all(member["requests_running"] == 0 and member["outstanding_tokens"] == 0 for member in states(route).values())


def test_a_client_that_goes_takes_its_request_along(tmp_path):
    with backend(times="constant:ttft=20ms,tpot=50ms") as one, router(tmp_path, [pool(one)]) as route:
        connection = http.client.HTTPConnection("127.0.0.1", route.port, timeout=30)
        connection.request("POST", "/v1/completions", json.dumps({"model": "m", "prompt": "x", "max_tokens": 2000, "stream": True}))
        response = connection.getresponse()
        assert response.read(1)
        one.wait_metric("vllm:num_requests_running", 1)
        connection.close()
        response.close()
        one.wait_metric("vllm:num_requests_running", 0)
        wait_for(lambda: states(route)[one.port]["requests_running"] == 0)


def test_sigterm_lets_streams_finish(tmp_path):
    with backend(times="constant:ttft=20ms,tpot=20ms") as one, router(tmp_path, [pool(one)]) as route:
        stream = route.client().completions.create(model="m", prompt="x", max_tokens=60, stream=True)
        chunks = [next(stream)]
        route.terminate()
        chunks += list(stream)
        assert chunks[-1].choices[0].finish_reason == "length"
        assert route.wait_end() == 0


def test_keys_at_the_router(tmp_path):
    with backend("--api-key", "inner") as one, \
            router(tmp_path, [pool(one, api_key_env="INNER")], env={"INNER": "inner", "SEXTANT_API_KEY": "outer"}) as route:
        assert complete(route).status == 401
        headers = {"Authorization": "Bearer outer", "Content-Type": "application/json"}
        body = {"model": "m", "prompt": "x", "max_tokens": 1}
        assert route.request("POST", "/v1/completions", body, headers=headers).status == 200
        assert route.get("/admin/v1/pools").status == 401
        assert route.request("GET", "/admin/v1/pools", headers=headers).status == 200


def test_bad_configurations_list_every_error(tmp_path):
    path = tmp_path / "pools.yaml"
    path.write_text("pools:\n  - model: a\n    members: []\n    policy: random\n  - model: b\n    members: ['h:1']\n    polcy: x\n    failover: c\n")
    run = server_process.sextant("route", "--config", path, "--port", "99999")
    assert run.returncode == 2
    for part in ("--port must be between", "pools[0].members must not be empty", "policy must be least_tokens", "did you mean policy?", "'c' is no pool"):
        assert part in run.stderr, run.stderr
    for text in ("pools: [", "- 1\n", "pools: yes\n", "\x00", "a: &x 1\n"):
        path.write_text(text)
        assert server_process.sextant("route", "--config", path, "--check").returncode == 2, text
    assert server_process.sextant("route", "--config", tmp_path / "none.yaml").returncode == 2
    path.write_text("pools:\n  - model: a\n    members: ['h:1']\n")
    run = server_process.sextant("route", "--config", path, "--check")
    assert run.returncode == 0 and "1 pools" in run.stdout
    path.write_text("pools:\n  - model: a\n    members: ['127.0.0.1:1']\n    api_key_env: NOT_SET_ANYWHERE\n")
    run = server_process.sextant("route", "--config", path, "--port", "0")
    assert run.returncode == 2 and "NOT_SET_ANYWHERE" in run.stderr


def test_a_websocket_and_a_client_that_reads_slowly(tmp_path):
    with backend() as one, router(tmp_path, [pool(one)]) as route:
        with websocket_client.WebSocket(route.port) as stream:
            stream.send({"model": "m", "prompt": "x", "max_tokens": 4})
            frames = stream.receive_answer()
            assert frames[-1]["delta"] == "[DONE]" and frames[-1]["finish_reason"] == "length" and len(frames) == 5
            stream.send({"model": "m", "prompt": "x", "max_tokens": 100000})
            stream.receive()
            stream.send({"cancel": True})
            assert stream.receive_answer()[-1]["finish_reason"] == "abort"
            one.wait_metric("vllm:num_requests_running", 0)
            stream.send({"model": "nobody", "prompt": "x"})
            assert stream.receive()["status"] == 404
    # Nothing of what it has not read is lost, and little of it waits in the router.
    with backend("--max-model-len", "65536", times="constant:ttft=1ms,tpot=0.02ms") as one, router(tmp_path, [pool(one)]) as route:
        body = json.dumps({"model": "m", "prompt": "x", "max_tokens": 20000, "ignore_eos": True, "stream": True})
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect(("127.0.0.1", route.port))
            before = route.resident_bytes()
            slow.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: r\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())
            wait_for(lambda: states(route)[one.port]["requests_running"] == 1)
            time.sleep(2)
            assert route.resident_bytes() - before < 4 << 20
            response = http.client.HTTPResponse(slow)
            response.begin()
            events = [line[6:] for line in response.read().decode().splitlines() if line.startswith("data: ")]
        assert events[-1] == "[DONE]"
        choices = [json.loads(event)["choices"][0] for event in events[:-1]]
        assert choices[-1]["finish_reason"] == "length"
        assert sum(len(choice["text"]) for choice in choices) == 20000  # a byte a token


def children_of(process):
    return [int(child) for child in pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()] + [
        int(child) for task in pathlib.Path(f"/proc/{process.pid}/task").iterdir() if int(task.name) != process.pid
        for child in (task / "children").read_text().split()]


def is_gone(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def test_workers_that_the_router_starts_and_keeps(tmp_path, model):
    workers = {"model": "m", "path": str(model), "num_workers": 2, "max_num_seqs": 4, "max_model_len": 256,
               "args": ["--device", "cpu", "--kv-cache-memory-bytes", "16M"], **QUICK}
    with router(tmp_path, [workers], "--shutdown-timeout", "20") as route:
        wait_for(lambda: [member["state"] for member in states(route).values()] == ["up", "up"], 60)
        assert {complete(route).status for _ in range(4)} == {200}
        ports = set(states(route))
        # Nobody else gets in: the workers ask for a key that only the router has.
        stranger = http.client.HTTPConnection("127.0.0.1", min(ports), timeout=30)
        stranger.request("GET", "/v1/models")
        assert stranger.getresponse().status == 401
        stranger.close()
        first = children_of(route.process)
        assert len(first) == 2
        os.kill(first[0], signal.SIGKILL)
        wait_for(lambda: len(states(route)) == 1)
        assert {complete(route).status for _ in range(4)} == {200}
        wait_for(lambda: [member["state"] for member in states(route).values()] == ["up", "up"], 60)
        assert "ended by signal Killed; it is started again" in route.log()
        second = children_of(route.process)
        route.terminate()
        assert route.wait_end() == 0
        assert all(is_gone(pid) for pid in second)
    with router(tmp_path, [{**workers, "num_workers": 1}]) as route:
        child = children_of(route.process)[0]
        route.process.kill()
        wait_for(lambda: is_gone(child))


def test_a_worker_that_cannot_start_is_said_and_tried_again(tmp_path):
    with router(tmp_path, [{"model": "m", "path": str(tmp_path / "no-model"), **QUICK}], wait=False) as route:
        route.wait_port()
        wait_for(lambda: route.log().count("ended with exit code 2; it is started again") >= 2)
        assert "no-model" in route.log()
        assert complete(route).status == 503
        assert route.get("/ready").status == 503
    path = tmp_path / "pools.json"
    path.write_text(json.dumps({"pools": [{"model": "m", "path": "x", "num_workers": 2, "gpu_ids": [0, 1, 2], "quantization": "fp8", "api_key_env": "K"},
                                          {"model": "n", "members": ["h:1"], "args": ["--x"]}]}))
    run = server_process.sextant("route", "--config", path, "--check")
    assert run.returncode == 2
    for part in ("gpu_ids must be as many for each worker: 3 for 2 workers", "quantization is of servers", "api_key_env is for servers", "args are for workers"):
        assert part in run.stderr, run.stderr
