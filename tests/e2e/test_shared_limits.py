"""Limits of keys that two servers share through a real Redis: exact with 64 clients, and no outage when Redis is away."""

import concurrent.futures
import http.client
import json
import threading
import time

import pytest
from gateway_support import bearer, complete, wait_until
from redis_server import PASSWORD, RedisServer
from server_process import Server, sextant

KEY = "the-one-key-of-both"
TOKENS = 8  # of a request below: a beginning, three bytes and four more
BODY = json.dumps({"model": "bytes", "prompt": "abc", "max_tokens": 4, "seed": 1, "ignore_eos": True})


@pytest.fixture(scope="module")
def redis():
    with RedisServer() as running:
        yield running


@pytest.fixture
def url(redis):
    """Running, and empty."""
    if redis.process is None:
        redis.start()
    redis.command("FLUSHALL")
    return redis.url


def serve(url, *arguments, timeout_ms=30000, time_model="constant:ttft=1ms,tpot=0ms"):
    """Redis has time enough, unless a test says otherwise: else a busy machine would make a degraded limit of an exact one."""
    return Server(None, "--time", time_model, "--api-key", KEY, "--redis-timeout-ms", timeout_ms, *arguments, verb="simulate",
                  env={"SEXTANT_REDIS_URL": url})


def redis_metrics(server):
    names = ("sextant:redis_up", "sextant:redis_failures_total", "sextant:redis_local_checks_total")
    lines = server.get("/metrics").body.splitlines()
    return [next(float(line.split()[1]) for line in lines if line.startswith(name + " ")) for name in names]


def is_up(server):
    return redis_metrics(server)[0] == 1


def ask_with_64_clients(servers, num_requests):
    """How many were let through, and the seconds it took; each client has one connection, half of them to each server."""
    start = threading.Barrier(65)

    def client(idx):
        connection = http.client.HTTPConnection("127.0.0.1", servers[idx % 2].port, timeout=120)
        statuses = []
        start.wait()
        for _ in range(num_requests // 64):
            connection.request("POST", "/v1/completions", BODY, bearer(KEY))
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
        connection.close()
        return statuses

    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        clients = [pool.submit(client, idx) for idx in range(64)]
        start.wait()
        begin = time.monotonic()
        statuses = [status for one in clients for status in one.result()]
    assert set(statuses) <= {200, 429}
    return statuses.count(200), time.monotonic() - begin


def test_requests_of_both_are_one_limit(url):
    limits = ("--limit-requests-per-s", "0.5", "--limit-request-burst", "500")
    with serve(url, *limits) as one, serve(url, *limits) as other:
        wait_until(lambda: is_up(one) and is_up(other), "both have Redis", 60)
        num, elapsed_s = ask_with_64_clients((one, other), 1024)
        print(f"{num} of 500 and {0.5 * elapsed_s:.1f} refilled in {elapsed_s:.2f} s")
        assert 500 <= num <= 500 + 0.5 * elapsed_s + 1
        refused = complete(other, KEY)
        assert refused.status == 429 and refused.error["code"] == "rate_limit_exceeded" and refused.headers["retry-after"] in ("1", "2")
        assert [redis_metrics(server) for server in (one, other)] == [[1, 0, 0], [1, 0, 0]]


def test_tokens_and_the_day_of_both_are_one_limit(url):
    unlimited = ("--limit-requests-per-s", "0")
    limits = (*unlimited, "--limit-tokens-per-minute", str(300 * TOKENS))
    with serve(url, *limits) as one, serve(url, *limits) as other:
        wait_until(lambda: is_up(one) and is_up(other), "both have Redis", 60)
        num, elapsed_s = ask_with_64_clients((one, other), 640)
        assert 300 <= num <= 300 + 5 * elapsed_s + 1
        assert redis_metrics(one)[2] == redis_metrics(other)[2] == 0
    limits = (*unlimited, "--limit-tokens-per-day", str(200 * TOKENS))
    for _ in range(2):  # not across midnight
        day = time.gmtime().tm_yday
        with serve(url, *limits) as one, serve(url, *limits) as other:
            wait_until(lambda one=one, other=other: is_up(one) and is_up(other), "both have Redis", 60)
            num, _ = ask_with_64_clients((one, other), 512)
            refused = complete(one, KEY)
        if time.gmtime().tm_yday == day:
            break
    assert num == 200
    assert refused.status == 429 and refused.error["code"] == "insufficient_quota"
    assert refused.headers["x-ratelimit-remaining-tokens"] == "0"


def test_places_of_both_are_one_limit_and_come_back(url):
    limits = ("--limit-concurrent-requests", "4", "--limit-tokens-per-minute", "12000")
    slow = "constant:ttft=1ms,tpot=50ms"
    with serve(url, *limits, time_model=slow) as one, serve(url, *limits, time_model=slow) as other:
        wait_until(lambda: is_up(one) and is_up(other), "both have Redis", 60)

        def stream(server):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
            body = {**json.loads(BODY), "max_tokens": 1900, "stream": True}
            connection.request("POST", "/v1/completions", json.dumps(body), bearer(KEY))
            answer = connection.getresponse()
            if answer.status == 200:
                answer.read(1)
            return answer.status, connection

        held = [stream(server) for server in (one, other, one, other)]
        assert [status for status, _ in held] == [200] * 4
        for server in (one, other):
            refused = complete(server, KEY)
            assert refused.status == 429 and refused.error["code"] == "concurrency_limit_exceeded"
        tokens_left, since = int(refused.headers["x-ratelimit-remaining-tokens"]), time.monotonic()
        held[0][1].close()
        answer = wait_until(lambda: (one_more := complete(other, KEY, max_tokens=1)).status == 200 and one_more,
                            "a place is free on the other", 60)
        # With what it had reserved and not used, beside the refill of 200 a second.
        assert int(answer.headers["x-ratelimit-remaining-tokens"]) > tokens_left + 200 * (time.monotonic() - since) + 500
        one.kill()  # with a place that it cannot give back
        for place in ("the one that was let go", "the dead server's"):
            held.append(wait_until(lambda: (answer := stream(other))[0] == 200 and answer, f"{place} is free", 60))
        for _, connection in held:
            connection.close()


def test_without_redis_each_goes_on_alone(redis, url):
    limits = ("--limit-requests-per-s", "0.001", "--limit-request-burst", "20")
    with serve(url, *limits) as one, serve(url, *limits) as other:
        wait_until(lambda: is_up(one) and is_up(other), "both have Redis", 60)
        assert complete(one, KEY).status == 200
        assert int(complete(other, KEY).headers["x-ratelimit-remaining-requests"]) == 18
        redis.kill()
        for server in (one, other):
            wait_until(lambda server=server: not is_up(server), "it is seen that Redis is away", 60)
        # Each has counted what it let through itself.
        for server in (one, other):
            assert [complete(server, KEY).status for _ in range(20)] == [200] * 19 + [429]
            up, failures, local = redis_metrics(server)
            assert (up, failures) == (0, 1) and local >= 20
            assert server.log().count("does not answer: limits are counted in this process alone") == 1
        redis.start()  # which remembers nothing
        for server in (one, other):
            wait_until(lambda server=server: is_up(server), "Redis is back", 60)
        statuses = [complete(server, KEY).status for _ in range(12) for server in (one, other)]
        assert statuses == [200] * 20 + [429] * 4
        # Who may read Redis sees no names, and everything there ends.
        keys = [line for line in redis.command("KEYS", "*").splitlines() if line.startswith("sextant:")]
        assert keys and not any("api-key" in key or "default" in key for key in keys)
        assert all(int(redis.command("PTTL", key).strip().lstrip(":")) > 0 for key in keys)
        for server in (one, other):
            assert PASSWORD not in server.log() + server.get("/metrics").body


def test_a_redis_that_stands_still_holds_nobody_up(redis, url):
    with serve(url, "--limit-requests-per-s", "0", "--limit-concurrent-requests", "100", timeout_ms=100) as server:
        wait_until(lambda: is_up(server), "it has Redis", 60)
        asleep = threading.Thread(target=redis.command, args=("DEBUG", "SLEEP", "3"))
        asleep.start()
        wait_until(lambda: complete(server, KEY).status == 200 and redis_metrics(server)[1] >= 1, "it is seen that Redis is slow", 60)
        asleep.join()
        wait_until(lambda: is_up(server) and "answers again" in server.log(), "it is back", 60)
        assert complete(server, KEY).status == 200


def test_a_server_starts_without_redis_and_no_one_sees_the_password():
    nowhere = f"redis://:{PASSWORD}@127.0.0.1:1/0"
    with serve(nowhere, "--limit-request-burst", "2", "--limit-requests-per-s", "0.001") as server:
        assert [complete(server, KEY).status for _ in range(3)] == [200, 200, 429]
        assert PASSWORD not in server.log()
    shown = sextant("simulate", "--api-key", KEY, "--redis-url", nowhere, "--redis-password", PASSWORD, "--print-config")
    assert shown.returncode == 0 and PASSWORD not in shown.stdout + shown.stderr
    assert json.loads(shown.stdout)["redis_url"] == "***"
    for wrong in (f"rediss://:{PASSWORD}@h", f"redis://:{PASSWORD}@h:0", f"redis://:{PASSWORD}@h/x"):
        refused = sextant("simulate", "--api-key", KEY, "--redis-url", wrong)
        assert refused.returncode == 2 and "--redis-url" in refused.stderr and PASSWORD not in refused.stderr
    refused = sextant("simulate", "--redis-url", "redis://h")
    assert refused.returncode == 2 and "asks nobody for a key" in refused.stderr
