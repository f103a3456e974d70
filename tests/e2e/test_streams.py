"""Streams beside server-sent events: WebSocket and JSON lines at /v1/stream, /generate; heartbeats; the end by SIGTERM."""

import http.client
import json
import signal
import socket
import threading

import pytest
from server_process import Server
from websocket_client import BINARY, PING, PONG, TEXT, Closed, WebSocket

TIMES = ("--time", "constant:ttft=5ms,tpot=1ms")
LONG = {"prompt": "Once", "max_tokens": 100_000, "ignore_eos": True}


@pytest.fixture(scope="module")
def simulated():
    with Server(None, *TIMES, "--max-body-bytes", 65536, verb="simulate") as server:
        yield server


def check_frames(frames):
    assert [frame["index"] for frame in frames] == list(range(len(frames)))
    *pieces, last = frames
    assert all(set(piece) == {"delta", "index"} for piece in pieces)
    assert last["delta"] == "[DONE]" and last["usage"]["completion_tokens"] > 0
    return "".join(piece["delta"] for piece in pieces), last


def lines(server, body):
    answer = server.post("/v1/stream", body)
    assert answer.status == 200 and answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.body.splitlines()]


def test_the_same_text_in_every_form(simulated):
    body = {"prompt": "A good day", "max_tokens": 12, "seed": 7}
    text = simulated.post("/v1/completions", body).json["choices"][0]["text"]
    assert simulated.post("/generate", body).json["response"] == text
    assert check_frames(lines(simulated, body))[0] == text
    with WebSocket(simulated.port) as stream:
        for _ in range(3):  # one connection, several requests
            stream.send({**body, "stream": True})
            seen, last = check_frames(stream.receive_answer())
            assert seen == text and last["finish_reason"] == "length"
            assert last["usage"]["completion_tokens"] == 12
    chat = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, "seed": 7}
    assert simulated.post("/v1/chat/completions", chat).json["choices"][0]["message"]["content"] == \
        check_frames(lines(simulated, chat))[0]


def test_text_of_the_model_ends_nothing(model):
    """Only finish_reason does: a model may well say [DONE]."""
    with Server(model, "--served-model-name", "m") as server:
        server_done = server.post("/tokenize", {"prompt": "[DONE] [DONE]", "add_special_tokens": False}).json["tokens"]
        # Allows the model these tokens alone.
        frames = lines(server, {"prompt": "Say", "max_tokens": 8, "ignore_eos": True, "allowed_token_ids": server_done})
        text, last = check_frames(frames)
        assert "[" in text or "D" in text or "]" in text
        assert last["finish_reason"] == "length" and "finish_reason" not in frames[-2]


def test_cancel(simulated):
    with WebSocket(simulated.port) as stream:
        stream.send(LONG)
        stream.receive()
        stream.send({"cancel": True})
        last = stream.receive_answer()[-1]
        assert last["finish_reason"] == "abort" and 0 < last["usage"]["completion_tokens"] < 100_000
        simulated.wait_metric("vllm:num_requests_running", 0)
        stream.send({"cancel": True})  # nothing runs: nothing happens
        stream.send({"prompt": "on", "max_tokens": 2})
        assert check_frames(stream.receive_answer())[1]["finish_reason"] == "length"
        # Before the first token, or before the engine has heard of it: an end comes all the same.
        for _ in range(20):
            stream.send(LONG)
            stream.send({"cancel": True})
            last = stream.receive_answer()[-1]
            assert last.get("finish_reason") == "abort" or last["status"] == 499, last
    simulated.wait_metric("vllm:num_requests_running", 0)


def test_a_second_request_waits_and_a_third_is_too_many(simulated):
    with WebSocket(simulated.port) as stream:
        stream.send({"prompt": "one", "max_tokens": 3})
        stream.send({"prompt": "two", "max_tokens": 5})
        assert check_frames(stream.receive_answer())[1]["usage"]["completion_tokens"] == 3
        assert check_frames(stream.receive_answer())[1]["usage"]["completion_tokens"] == 5
        stream.send(LONG)
        stream.receive()
        stream.send({"prompt": "waits"})
        stream.send({"prompt": "too many"})
        assert stream.close_code() == 1008
    simulated.wait_metric("vllm:num_requests_running", 0)


def test_a_client_that_goes_away_ends_its_request(simulated):
    with WebSocket(simulated.port) as stream:
        stream.send(LONG)
        stream.receive()
    simulated.wait_metric("vllm:num_requests_running", 0)


@pytest.mark.parametrize("body,param", [({"prompt": "x", "n": 2}, "n"), ({"prompt": ["a", "b"]}, "prompt"),
                                        ({"prompt": "x", "logprobs": 1}, "logprobs"), ({"prompt": "x", "echo": True}, "echo"),
                                        ({"max_tokens": 3}, "prompt"), ({"prompt": "x", "api_key": 3}, "api_key"),
                                        ({"prompt": "x", "promt": 1}, "promt")])
def test_what_has_no_place_in_frames_is_refused_by_name(simulated, body, param):
    answer = simulated.post("/v1/stream", body)
    assert answer.status == 400 and answer.error["param"] == param
    with WebSocket(simulated.port) as stream:
        stream.send(body)
        frame = stream.receive()
        assert frame["status"] == 400 and frame["error"]["param"] == param
        stream.send({"prompt": "still here", "max_tokens": 1})
        assert check_frames(stream.receive_answer())


def test_streamed_or_not_is_the_path_s_business(simulated):
    assert simulated.post("/v1/stream", {"prompt": "x", "stream": False}).error["param"] == "stream"
    assert simulated.post("/generate", {"prompt": "x", "stream": True}).error["param"] == "stream"
    assert simulated.get("/v1/stream").status == 405


def test_keys():
    with Server(None, *TIMES, "--header-timeout-ms", 1500, verb="simulate", env={"SEXTANT_API_KEY": "the-key"}) as server:
        with WebSocket(server.port, headers={"Authorization": "Bearer the-key"}) as stream:
            stream.send({"prompt": "x", "max_tokens": 2})
            check_frames(stream.receive_answer())
        with WebSocket(server.port) as stream:
            stream.send({"prompt": "x", "max_tokens": 2, "api_key": "the-key"})
            check_frames(stream.receive_answer())
            stream.send({"prompt": "x", "max_tokens": 2})  # the key stays
            check_frames(stream.receive_answer())
        for headers, body in [({}, {"prompt": "x"}), ({}, {"prompt": "x", "api_key": "wrong-key"}),
                              ({"Authorization": "Bearer wrong-key"}, {"prompt": "x"}),
                              ({"Authorization": "Bearer wrong-key"}, {"prompt": "x", "api_key": "the-key"})]:
            with WebSocket(server.port, headers=headers) as stream:
                stream.send(body)
                assert stream.receive()["status"] == 401
                assert stream.close_code() == 1008
        with WebSocket(server.port) as stream:  # says nothing
            assert stream.close_code() == 1008
        assert "the-key" not in server.log() and "wrong-key" not in server.log()


def test_a_page_of_another_site_needs_a_key(simulated):
    body = {"prompt": "x", "max_tokens": 1}
    with WebSocket(simulated.port, headers={"Origin": "https://elsewhere.example"}) as stream:
        stream.send(body)
        assert stream.receive()["status"] == 403
        assert stream.close_code() == 1008
    with WebSocket(simulated.port, headers={"Origin": f"http://127.0.0.1:{simulated.port}"}) as stream:
        stream.send(body)
        check_frames(stream.receive_answer())


@pytest.mark.parametrize("change", [{"Sec-WebSocket-Version": "12"}, {"Sec-WebSocket-Key": "k" * 200}, {"Connection": "close"},
                                    {"Content-Length": "5"}])
def test_bad_handshakes(simulated, change):
    with WebSocket(simulated.port, headers=change, timeout=20) as stream:
        assert stream.status in (400, 405, 426)


@pytest.mark.parametrize("frames,code", [
    ([(TEXT, b"{}", {"masked": False})], 1002),
    ([(TEXT, b"{}", {"reserved": 4})], 1002),
    ([(3, b"{}", {})], 1002),
    ([(9, b"p" * 126, {})], 1002),           # a control frame too long
    ([(9, b"", {"fin": False})], 1002),      # a control frame in pieces
    ([(0, b"{}", {})], 1002),                # goes on with nothing
    ([(TEXT, b"{", {"fin": False}), (TEXT, b"}", {})], 1002),
    ([(TEXT, b"\xff\xfe", {})], 1007),
    ([(BINARY, b"{}", {})], 1003),
    ([(TEXT, b"x" * 70_000, {})], 1009),
    ([(TEXT, b"x" * 40_000, {"fin": False}), (0, b"x" * 40_000, {})], 1009),
    ([(8, b"\x03", {})], 1002),              # a close code of one byte
])
def test_malformed_frames_get_their_close_code(simulated, frames, code):
    with WebSocket(simulated.port, timeout=20) as stream:
        try:
            for opcode, payload, options in frames:
                stream.send_frame(opcode, payload, **options)
        except ConnectionError:
            pass  # refused in the middle
        assert stream.close_code() == code
    assert simulated.get("/health").status == 200


def test_messages_in_pieces_and_pings_between_them(simulated):
    message = json.dumps({"prompt": "x", "max_tokens": 2}).encode()
    with WebSocket(simulated.port) as stream:
        stream.send_frame(TEXT, message[:5], fin=False)
        stream.send_frame(9, b"are you there")
        stream.send_frame(0, message[5:])
        check_frames(stream.receive_answer())


def test_not_json(simulated):
    with WebSocket(simulated.port) as stream:
        for text in ["", "{", "[]", "null", '"cancel"', '{"cancel":true', "[" * 100, '{"a":' * 100]:
            stream.send(text)
            assert stream.receive()["status"] == 400
        stream.send({"prompt": "x", "max_tokens": 1})
        check_frames(stream.receive_answer())


def test_a_dead_connection_is_dropped():
    with Server(None, *TIMES, "--idle-timeout-ms", 600, verb="simulate") as server:
        with WebSocket(server.port, timeout=20) as stream:
            stream.answers_pings = False
            assert stream.close_code() is None
            assert stream.num_pings >= 1


def test_a_silent_connection_is_pinged_and_stays():
    with Server(None, *TIMES, "--idle-timeout-ms", 8000, verb="simulate") as server:
        with WebSocket(server.port, timeout=60) as stream:
            stream.send({"prompt": "x", "max_tokens": 1})
            check_frames(stream.receive_answer())
            first, second = stream._exactly(2)
            assert first == 0x80 | PING
            stream.send_frame(PONG, stream._exactly(second))
            stream.send({"prompt": "x", "max_tokens": 1})
            check_frames(stream.receive_answer())


def test_heartbeats_of_silent_streams():
    with Server(None, "--time", "constant:ttft=2500ms,tpot=1ms", "--sse-heartbeat-s", 1, verb="simulate") as server:
        answer = server.post("/v1/completions", {"prompt": "x", "max_tokens": 3, "stream": True})
        assert answer.body.startswith(": keep-alive\n\n") and answer.body.endswith("data: [DONE]\n\n")
        events = [event for event in answer.body.split("\n\n") if event and not event.startswith(":")]
        assert all(event.startswith("data: ") for event in events)
        stream = server.client().completions.create(model="bytes", prompt="x", max_tokens=3, stream=True)
        assert sum(len(chunk.choices[0].text) for chunk in stream if chunk.choices) == 3
        assert server.post("/v1/stream", {"prompt": "x", "max_tokens": 3}).body.startswith('{"delta"')


def test_sigterm_lets_every_kind_of_stream_finish():
    with Server(None, "--time", "constant:ttft=5ms,tpot=10ms", verb="simulate") as server:
        body = {"prompt": "x", "max_tokens": 100, "ignore_eos": True}
        idle = WebSocket(server.port, timeout=30)
        websocket = WebSocket(server.port, timeout=30)
        websocket.send(body)
        websocket.receive()
        answers = {}

        def post(path, request):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
            connection.request("POST", path, json.dumps(request), {"Content-Type": "application/json"})
            answers[path] = connection.getresponse().read().decode()

        threads = [threading.Thread(target=post, args=("/v1/stream", body)),
                   threading.Thread(target=post, args=("/v1/completions", {**body, "stream": True})),
                   threading.Thread(target=post, args=("/generate", body))]
        for thread in threads:
            thread.start()
        server.wait_metric("vllm:num_requests_running", 4)
        server.terminate(signal.SIGTERM)
        # New work is refused from when the server says so, by every door.
        while server.get("/ready").status == 200:
            pass
        assert server.post("/v1/stream", body).status == 503
        idle.send(body)
        assert idle.receive()["status"] == 503
        frames = websocket.receive_answer()
        assert frames[-1]["finish_reason"] == "length" and frames[-1]["usage"]["completion_tokens"] == 100
        for thread in threads:
            thread.join(30)
        assert json.loads(answers["/v1/stream"].splitlines()[-1])["finish_reason"] == "length"
        assert answers["/v1/completions"].endswith("data: [DONE]\n\n")
        assert json.loads(answers["/generate"])["finish_reason"] == "length"
        assert server.wait_end(30) == 0
        for stream in (idle, websocket):
            assert stream.close_code() in (1001, None)


def test_sigterm_cuts_what_does_not_finish_in_time():
    with Server(None, *TIMES, "--shutdown-timeout", 1, verb="simulate") as server:
        with WebSocket(server.port, timeout=30) as stream:
            stream.send(LONG)
            stream.receive()
            server.terminate(signal.SIGTERM)
            frames = []
            with pytest.raises((Closed, ConnectionError)):
                while True:
                    frames.append(stream.receive())
            assert not any("finish_reason" in frame for frame in frames), "a stream that was cut never looks complete"
        assert server.wait_end(30) == 0


def test_a_connection_that_only_opens_holds_no_request(simulated):
    with socket.create_connection(("127.0.0.1", simulated.port)) as connection:
        connection.sendall(b"GET /v1/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n")
        assert simulated.get("/health").status == 200
