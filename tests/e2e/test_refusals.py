"""Every refusal says when to come back and what is left, and is counted by its reason; what one client address may do."""

import concurrent.futures
import contextlib
import http.client
import socket

import pytest
from gateway_support import TIMES, bearer, complete, jwk_set, make_key, token, wait_until
from server_process import Server

RATE_HEADERS = [f"x-ratelimit-{kind}-{of}" for kind in ("limit", "remaining", "reset") for of in ("requests", "tokens")]


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


def refused(server, key):
    """{reason: count} of /metrics, read with a key of the role metrics."""
    prefix = 'sextant:requests_refused_total{reason="'
    lines = server.get("/metrics", headers=bearer(key)).body.splitlines()
    return {line[len(prefix):].split('"')[0]: float(line.split()[-1]) for line in lines if line.startswith(prefix)}


def test_reasons_and_headers(state):
    watcher, _ = make_key(state, "--role", "metrics")
    rate, _ = make_key(state, "--limit", "requests_per_s=0.001", "--limit", "request_burst=2", "--limit", "tokens_per_minute=1000")
    tokens, _ = make_key(state, "--limit", "tokens_per_minute=100")
    quota, _ = make_key(state, "--tenant", "poor", "--limit", "tokens_per_day=30")
    capped, _ = make_key(state, "--limit", "max_tokens=3", "--limit", "requests_per_s=50")
    with Server(None, *TIMES, "--state-dir", state, "--failed-logins-per-minute", "3", "--unauthenticated-per-s", "1",
                "--trusted-proxies", "127.0.0.1", verb="simulate") as server:
        assert set(refused(server, watcher)) >= {"rate", "tokens", "concurrency", "quota", "cap", "address", "failed_logins",
                                                 "connections", "credentials", "role", "queue", "shed", "not_serving", "audit"}
        before = refused(server, watcher)

        def check(answer, status, reason, headers=()):
            nonlocal before
            assert answer.status == status, answer.body
            assert status not in (429, 503) or int(answer.headers["retry-after"]) >= 1
            assert all(header in answer.headers for header in headers), answer.headers
            now = refused(server, watcher)
            changed = {name: now[name] - before[name] for name in now if now[name] != before[name]}
            assert changed == ({reason: 1} if reason else {}), reason
            before = now

        check(complete(server, rate), 200, None, RATE_HEADERS)
        first = complete(server, rate, max_tokens=-1)
        check(first, 400, None, RATE_HEADERS)  # an error that is no refusal says it too
        assert first.headers["x-ratelimit-remaining-requests"] == "0"
        check(complete(server, rate), 429, "rate", RATE_HEADERS)
        check(complete(server, tokens, max_tokens=60), 200, None, RATE_HEADERS)
        check(complete(server, tokens, max_tokens=60), 429, "tokens", RATE_HEADERS)
        check(complete(server, tokens, max_tokens=600), 400, "tokens", RATE_HEADERS)
        with server.client(api_key=capped).completions.create(model="bytes", prompt="x", max_tokens=2, stream=True) as stream:
            assert "x-ratelimit-remaining-requests" in stream.response.headers
            list(stream)
        check(complete(server, capped, max_tokens=4), 400, "cap", RATE_HEADERS[::2])
        check(complete(server, quota, max_tokens=60), 429, "quota", RATE_HEADERS)
        check(complete(server, watcher), 403, "role")

        def of(client, key=None):
            headers = {"X-Forwarded-For": client, "Content-Type": "application/json"}
            return server.post("/v1/completions", {"prompt": "x", "max_tokens": 1}, headers={**headers, **(bearer(key) if key else {})})
        for _ in range(3):
            check(of("8.8.8.8", "sk-wrong"), 401, "credentials")
        check(of("8.8.8.8", "sk-wrong"), 429, "failed_logins")
        for _ in range(2):
            check(of("8.8.4.4"), 401, "credentials")
        check(of("8.8.4.4"), 429, "address")


def test_a_queue_that_is_full_is_counted():
    with Server(None, "--time", "constant:ttft=2s,tpot=1ms", "--max-num-seqs", "1", "--max-num-queued-reqs", "1", verb="simulate") as server:
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda _: server.post("/v1/completions", {"model": "bytes", "prompt": "x", "max_tokens": 1}), range(6)))
        full = [answer for answer in answers if answer.status != 200]
        assert full and all(answer.status in (429, 503) and int(answer.headers["retry-after"]) >= 1 for answer in full)
        shown = {line.split()[0]: float(line.split()[1]) for line in server.get("/metrics").body.splitlines()
                 if line.startswith("sextant:requests_refused_total")}
        assert shown['sextant:requests_refused_total{reason="queue"}'] == len(full)


def connect(server, source):
    return http.client.HTTPConnection("127.0.0.1", server.port, timeout=60, source_address=(source, 0))


def status_on(connection):
    connection.request("GET", "/health")
    answer = connection.getresponse()
    answer.read()
    return answer.status, answer.headers


def test_connections_of_one_address():
    with Server(None, *TIMES, "--max-connections-per-address", "20", verb="simulate") as server, contextlib.ExitStack() as stack:
        held = [connect(server, "127.0.0.2") for _ in range(20)]
        assert [status_on(connection)[0] for connection in held] == [200] * 20
        with contextlib.closing(connect(server, "127.0.0.2")) as one_more:
            status, headers = status_on(one_more)
            assert status == 503 and int(headers["retry-after"]) >= 1 and headers["connection"] == "close"
        # A flood from there takes no places from others.
        for _ in range(300):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=60, source_address=("127.0.0.2", 0)))
        with contextlib.closing(connect(server, "127.0.0.3")) as other:
            assert status_on(other)[0] == 200
            wait_until(lambda: server.metric("http_connections_active") <= 20 + 4 + 2, "the flood is turned away")
        assert all(status_on(connection)[0] == 200 for connection in held)  # who is in stays in
        shown = {line.split()[0]: float(line.split()[1]) for line in server.get("/metrics").body.splitlines()
                 if line.startswith("sextant:requests_refused_total")}
        assert shown['sextant:requests_refused_total{reason="connections"}'] >= 297
        stack.close()
        held.pop().close()
        wait_until(lambda: server.metric("http_connections_active") <= 19 + 1, "they are gone")

        def is_let_in():
            with contextlib.closing(connect(server, "127.0.0.2")) as again:
                return status_on(again)[0] == 200
        wait_until(is_let_in, "there is a place again")


def test_a_trusted_proxy_speaks_for_many():
    with Server(None, *TIMES, "--max-connections-per-address", "5", "--trusted-proxies", "127.0.0.2", verb="simulate") as server:
        held = [connect(server, "127.0.0.2") for _ in range(30)]
        assert [status_on(connection)[0] for connection in held] == [200] * 30


def test_requests_without_a_key_and_wrong_tokens(tmp_path):
    jwks = tmp_path / "jwks.json"
    jwks.write_text(jwk_set())
    with Server(None, *TIMES, "--jwks", jwks, "--jwt-audience", "sextant", "--jwt-issuer", "test", "--unauthenticated-per-s", "0.5",
                "--failed-logins-per-minute", "4", "--trusted-proxies", "127.0.0.0/8", verb="simulate") as server:
        def health(client):
            return server.get("/health", headers={"X-Forwarded-For": client}).status
        statuses = [health("9.9.9.9") for _ in range(20)]
        assert statuses[0] == 200 and 429 in statuses and statuses.index(429) <= 2
        assert health("9.9.9.8") == 200
        # Of IPv6 a customer has a /64: its addresses are one client.
        six = [health(f"2001:db8::{i:x}") for i in range(20)]
        assert 429 in six and health("2001:db8:0:1::1") == 200

        def ask(key, client):
            return server.post("/v1/completions", {"prompt": "x", "max_tokens": 1}, headers={**bearer(key), "X-Forwarded-For": client}).status
        wrong = token(b"another secret of thirty-two byt", roles=["inference"])
        assert [ask(wrong, "7.7.7.7") for _ in range(6)] == [401] * 4 + [429] * 2
        # Nothing is verified for that address now but what is known already: a token that was seen before works on.
        seen = token(roles=["inference"], sub="seen")
        assert ask(seen, "6.6.6.6") == 200 and ask(seen, "7.7.7.7") == 200
        assert ask(token(roles=["inference"], sub="fresh"), "7.7.7.7") == 429
