"""The log as JSON: each line an object, one for each request, and no secret in any."""

import json
import re

from gateway_support import TIMES, bearer, complete, make_key, wait_until
from server_process import Server

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def lines_of(server):
    return [json.loads(line) for line in server.log().splitlines()]


def requests_of(server):
    return [line for line in lines_of(server) if "request_id" in line]


def json_server(*arguments):
    """The harness finds the port in the text of a line; it is in the message of one here."""
    return Server(None, *TIMES, "--log-format", "json", *arguments, verb="simulate")


def test_a_line_for_each_request(tmp_path):
    state = tmp_path / "state"
    key, key_id = make_key(state, "--tenant", "shop")
    with json_server("--access-log", "--state-dir", state) as server:
        answer = server.post("/v1/completions", {"model": "bytes", "prompt": "a prompt that is private", "max_tokens": 4, "ignore_eos": True},
                             headers={**bearer(key), "X-Request-Id": "mine", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"})
        assert answer.status == 200
        wait_until(lambda: [line for line in requests_of(server) if line["request_id"] == "mine"], "the line is there")
        [line] = [line for line in requests_of(server) if line["request_id"] == "mine"]
        usage = answer.json["usage"]
        assert line["level"] == "info" and line["message"] == "POST /v1/completions 200"
        assert line["trace_id"] == TRACE and answer.headers["traceparent"].split("-")[2] == line["span_id"]
        assert (line["tenant"], line["key_id"], line["model"], line["status"]) == ("shop", key_id, "bytes", 200)
        assert (line["prompt_tokens"], line["completion_tokens"]) == (usage["prompt_tokens"], usage["completion_tokens"])
        assert line["finish_reason"] == "length" and line["client_address"] == "127.0.0.1"
        assert 0 < line["duration_ms"] < 60_000 and line["response_bytes"] > 0
        # One each, refused ones and those to nowhere too.
        before = len(requests_of(server))
        assert complete(server, "sk-wrong-hidden-word").status == 401
        assert server.get("/no/such?token=hidden-word", headers={"Cookie": "hidden-word"}).status == 404
        wait_until(lambda: len(requests_of(server)) >= before + 2, "their lines are there")
        refused = next(line for line in requests_of(server) if line["status"] == 401)
        assert "tenant" not in refused and re.fullmatch(r"[0-9a-f]{32}", refused["trace_id"])
        log = server.log()
    assert all(secret not in log for secret in (key, key[-43:], "hidden-word", "a prompt that is private"))


def test_what_clients_send_stays_inside_its_line():
    with json_server("--access-log") as server:
        for path in ("/%0a%7b%22level%22%3a%22forged%22%7d", "/%ff%fe", "/" + "x" * 5000, "/%22%5c%00"):
            server.get(path)
        server.get("/marker")
        wait_until(lambda: [line for line in requests_of(server) if line["path"] == "/marker"], "all are written")
        assert not [line for line in lines_of(server) if line["level"] == "forged"]
        assert max(len(line["path"]) for line in requests_of(server)) <= 512
    with Server(None, *TIMES, "--access-log", verb="simulate") as server:
        server.get("/%0a2026-01-01%20forged")
        server.get("/marker")
        wait_until(lambda: "GET /marker 404" in server.log(), "it is written")
        assert "GET  400" in server.log() and not [line for line in server.log().splitlines() if line.startswith("2026-01-01")]


def test_without_being_asked_requests_are_lines_at_debug():
    with json_server() as server:
        server.get("/health")
        assert not requests_of(server)
    with json_server("--log-level", "debug") as server:
        server.get("/health")
        wait_until(lambda: [line for line in requests_of(server) if line["path"] == "/health" and line["level"] == "debug"], "they are there")
