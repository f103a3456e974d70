"""Bad input, row by row, as any HTTP client sees it: status, error object, param."""

import json
import socket

import pytest

MODEL = "smollm2"
CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "Hi"}]


def expect(answer, status, part=None, param=None, code=None):
    assert answer.status == status, answer.body
    error = answer.error
    assert set(error) >= {"message", "type", "param", "code"}
    if part is not None:
        assert part in error["message"], error
    if param is not None:
        assert error["param"] == param, error
    if code is not None:
        assert error["code"] == code, error
    return error


def chat(server, **fields):
    return server.post(CHAT, {"model": MODEL, "messages": MESSAGES, "max_tokens": 2, **fields})


def completion(server, **fields):
    return server.post("/v1/completions", {"model": MODEL, "prompt": "Hi", "max_tokens": 2, **fields})


def test_unknown_model(server):
    expect(completion(server, model="nope"), 404, "nope", code="model_not_found")
    expect(server.get("/v1/models/nope"), 404, "nope")
    assert server.get(f"/v1/models/{MODEL}").json["id"] == MODEL


def test_prompt_longer_than_the_context(server):
    limit = server.get("/v1/models").json["data"][0]["max_model_len"]
    error = expect(completion(server, prompt=[5] * (limit + 10)), 400, str(limit), code="context_length_exceeded")
    assert str(limit + 10) in error["message"]


def test_prompt_and_max_tokens_longer_than_the_context(server):
    limit = server.get("/v1/models").json["data"][0]["max_model_len"]
    expect(completion(server, prompt=[5] * 100, max_tokens=limit), 400, str(limit), code="context_length_exceeded")
    expect(chat(server, max_tokens=limit), 400, str(limit), code="context_length_exceeded")


def test_malformed_json_says_where(server):
    error = expect(server.post(CHAT, '{"model": "x", "messages": [}'), 400)
    assert any(word in error["message"] for word in ("29", "28", "column", "byte", "position")), error
    for body in ("", "[]", "3", '"text"', "{'a': 1}", '{"a": 1} trailing', "\x00"):
        expect(server.post(CHAT, body), 400)


@pytest.mark.parametrize("field,value", [
    ("temperature", -0.1), ("top_p", 0), ("top_p", 1.5), ("top_k", -2), ("min_p", 2),
    ("n", 0), ("n", 100000), ("presence_penalty", 3), ("frequency_penalty", -3), ("repetition_penalty", 0),
    ("max_tokens", 0), ("max_tokens", -5), ("top_logprobs", 100), ("min_tokens", -1),
])
def test_out_of_range_names_field_and_range(server, field, value):
    extra = {"logprobs": True} if field == "top_logprobs" else {}
    error = expect(chat(server, **{field: value}, **extra), 400, field, param=field)
    assert any(character.isdigit() for character in error["message"].replace(field, "")), f"no range in: {error}"


@pytest.mark.parametrize("field,value", [
    ("temperature", "hot"), ("n", 1.5), ("stream", "yes"), ("stop", 5), ("messages", "Hi"), ("messages", [{"role": "user", "content": 5}]),
    ("messages", []), ("logit_bias", {"x": 1}), ("logit_bias", {"99999999": 1}), ("seed", "a"), ("stop", [""]),
])
def test_wrong_type_or_value_names_the_field(server, field, value):
    error = expect(chat(server, **{field: value}), 400)
    assert error["param"] and error["param"].split("[")[0].split(".")[0] == field, error


def test_missing_fields(server):
    expect(server.post(CHAT, {"model": MODEL}), 400, param="messages")
    expect(server.post("/v1/completions", {"model": MODEL}), 400, param="prompt")


def test_unknown_field_names_the_nearest(server):
    expect(chat(server, temprature=1), 400, "temperature", param="temprature")


def test_unsupported_fields_that_would_change_the_answer(server):
    expect(chat(server, response_format={"type": "json_object"}), 400, param="response_format")
    expect(completion(server, suffix="end"), 400, param="suffix")


def test_prompts_of_bad_ids(server):
    for prompt in ([-1], [10**9], [1.5], [True], [[]], [], ["a", 1], [[1], "a"], {}, None):
        expect(completion(server, prompt=prompt), 400)


def test_body_over_the_limit(model):
    import server_process

    with server_process.Server(model, "--max-body-bytes", "64K") as small:
        expect(small.post(CHAT, {"model": "x", "messages": [{"role": "user", "content": "a" * 100_000}]}), 413)
        assert small.get("/health").status == 200


def test_routes_and_methods_that_do_not_exist(server):
    expect(server.get("/v1/nothing"), 404)
    answer = server.get(CHAT)
    assert answer.status == 405
    assert "POST" in answer.headers["allow"]


def test_wrong_bytes_on_the_wire(server):
    for raw in (b"\x16\x03\x01\x00\xff\x01\x00", b"GET / HTTP/9.9\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
                b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 5000 + b"\r\n", b"\r\n" * 1000,
                b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(raw)
            connection.settimeout(20)
            answer = connection.recv(4096)
            assert answer == b"" or answer.startswith(b"HTTP/1."), answer
            assert not answer.startswith(b"HTTP/1.1 2"), answer
    assert server.get("/health").status == 200


def test_a_slow_client_times_out_and_holds_nobody_up(model):
    import select

    import server_process

    with server_process.Server(model, "--header-timeout-ms", "2000") as strict:
        sockets = [socket.create_connection(("127.0.0.1", strict.port)) for _ in range(50)]
        for connection in sockets:
            connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n")
        assert strict.get("/health").status == 200
        assert not select.select(sockets, [], [], 0)[0], "answered before the first of them was sent away"
        for connection in sockets:
            connection.settimeout(10)
            received = connection.recv(4096)
            assert received == b"" or b" 408 " in received.split(b"\r\n")[0] + b" "
            connection.close()


def test_a_full_queue_is_503_with_retry_after(model):
    import concurrent.futures

    import server_process

    with server_process.Server(model, "--max-num-seqs", "1", "--max-num-queued-reqs", "1") as narrow:
        body = {"model": server_process.model_id(narrow), "prompt": "Hi", "max_tokens": 200, "ignore_eos": True}
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda _: narrow.post("/v1/completions", body), range(12)))
        statuses = [answer.status for answer in answers]
        assert set(statuses) == {200, 503}, statuses
        for answer in answers:
            if answer.status == 503:
                assert int(answer.headers["retry-after"]) >= 1
                expect(answer, 503)


def test_deep_and_hostile_json(server):
    for body in ("[" * 100_000, '{"a":' * 50_000, json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "x", "y": [[[[]]]]}]}),
                 '{"model": "' + MODEL + '", "messages": [{"role": "user", "content": "\\ud800"}]}',
                 b'{"model": "smollm2", "messages": [{"role": "user", "content": "\xff\xfe"}]}'):
        answer = server.post(CHAT, body)
        assert answer.status in (200, 400), answer.body
    assert server.get("/health").status == 200


def test_errors_inside_a_stream_request_are_plain_answers(server):
    answer = chat(server, stream=True, temperature=-1)
    expect(answer, 400, param="temperature")
    assert answer.headers["content-type"].startswith("application/json")
