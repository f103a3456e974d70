"""Clients that mean no good: they cost bounded memory and time, and others do not notice."""

import concurrent.futures
import contextlib
import resource
import socket
import threading
import time

import pytest
from server_process import Server
from websocket_client import TEXT, WebSocket

TIMES = ("--time", "constant:ttft=1ms,tpot=1ms")
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def server():
    with Server(None, *TIMES, "--header-timeout-ms", 3000, "--body-timeout-ms", 3000, "--write-timeout-ms", 3000,
                "--max-body-bytes", MIB, "--max-connections", 4096, verb="simulate") as running:
        for _ in range(20):  # so that what threads allocate once is there
            answer_of(running)
        yield running


def answer_of(server):
    answer = server.post("/v1/completions", {"prompt": "hello", "max_tokens": 4})
    assert answer.status == 200, answer.body
    return answer


def connect(server, timeout=30, receive_buffer=None):
    connection = socket.socket()
    connection.settimeout(timeout)
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.connect(("127.0.0.1", server.port))
    return connection


def say(server, request, timeout=30):
    """All that comes back until the server closes."""
    with connect(server, timeout) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(request)
        received = b""
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65536):
                received += piece
        return received


@contextlib.contextmanager
def others_are_served(server):
    """Somebody else's requests go on, each with its whole answer."""
    stop, failures, served = threading.Event(), [], [0]

    def work():
        while not stop.is_set():
            try:
                assert answer_of(server).json["usage"]["completion_tokens"] == 4
                served[0] += 1
            except Exception as error:  # noqa: BLE001 - reported below
                failures.append(error)
                return

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
        before = served[0]
        deadline = time.monotonic() + 30
        while served[0] < before + 3 and not failures and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not failures, failures
        assert served[0] >= before + 3
    finally:
        stop.set()
        thread.join(60)


def test_slowloris(server):
    with others_are_served(server), contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connect(server)) for _ in range(200)]
        gone = set()
        deadline = time.monotonic() + 30
        while len(gone) < len(slow) and time.monotonic() < deadline:  # a byte now and then, for ever
            for idx, connection in enumerate(slow):
                if idx in gone:
                    continue
                try:
                    connection.sendall(b"G" if idx % 2 else b"X")
                except ConnectionError:
                    gone.add(idx)
            time.sleep(0.2)
        assert len(gone) == len(slow), f"{len(slow) - len(gone)} still hold their connection"


def test_slow_bodies(server):
    with others_are_served(server), contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connect(server)) for _ in range(50)]
        for connection in slow:
            connection.sendall(HEAD + b"Content-Length: 100000\r\n\r\n{")
        for connection in slow:
            assert b" 408 " in connection.recv(65536).split(b"\r\n")[0]


@pytest.mark.parametrize("request_bytes,statuses", [
    (b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", b"431"),
    (b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 1000 + b"\r\n", b"431"),
    (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"431 400"),
    (HEAD + b"Content-Length: 99999999999\r\n\r\n", b"413"),
    (HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n", b"400"),
    (HEAD + b"Content-Length: -1\r\n\r\n", b"400"),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n", b"400 413"),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"10000\r\n" + b"x" * 65536 + b"\r\n" + (b"10000\r\n" + b"x" * 65536 + b"\r\n") * 20,
     b"413"),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"e" * 200_000 + b"\r\n", b"400 413 431"),
    # Smuggling: a body that two programs would end at different places.
    (HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
    (HEAD + b"Content-Length: 2\r\nContent-Length: 40\r\n\r\n{}", b"400"),
    (HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", b"400 501"),
    (HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", b"501"),
    (HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", b"400"),
    (HEAD + b"Content-Length: 5\r\n X: folded\r\n\r\nhello", b"400"),
    (HEAD + b"Content-Length: +2\r\n\r\n{}", b"400"),
    (b"POST /v1/completions HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
    (b"GET /health HTTP/1.1\r\n\r\n", b"400"),
    (b"GET /health HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", b"400"),
    (b"GET /health HTTP/1.1\nHost: x\n\n", b"400 408"),
    (b"GET /hea\x00lth HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 300, b"400 408"),  # a TLS hello
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"400 505"),
    (b"\x00" * 5000, b"400 408"),
])
def test_what_is_malformed_is_answered_once_and_closed(server, request_bytes, statuses):
    received = say(server, request_bytes)
    status = received.split(b" ", 2)[1] if received else b"none"
    assert status in statuses.split(), received[:300]
    assert received.count(b"\r\nServer: sextant\r\n") == 1, "what was smuggled got an answer of its own"
    answer_of(server)


def test_memory_stays_bounded_under_large_and_broken_requests(server):
    before = server.resident_bytes()
    body = b'{"prompt": "' + b"x" * (MIB - 100)  # never ends
    with others_are_served(server), concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: say(server, HEAD + b"Connection: close\r\nContent-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body),
                      range(48)))
    # 8 at once with a MiB each, copied a few times in parsing; 48 MiB went through.
    assert server.resident_bytes() - before < 64 * MIB


def num_aborted(server):
    return sum(value for (name, labels), value in server.metrics().items()
               if name == "llm_requests_total" and ("status", "aborted") in labels)


def test_clients_that_read_nothing(server):
    before, aborted = server.resident_bytes(), num_aborted(server)
    body = b'{"prompt": "x", "max_tokens": 100000, "ignore_eos": true, "stream": true, "n": 32}'
    with others_are_served(server), contextlib.ExitStack() as stack:
        for _ in range(8):
            connection = stack.enter_context(connect(server, receive_buffer=4096))
            connection.sendall(HEAD + b"Content-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body)
        for _ in range(8):
            stream = stack.enter_context(WebSocket(server.port, receive_buffer=4096))
            stream.send_frame(TEXT, b'{"prompt": "x", "max_tokens": 100000, "ignore_eos": true}')
        # The ones whose answers are large are cut off soon, the WebSockets at the end; until then they hold what limits allow.
        most, deadline = 0, time.monotonic() + 120
        while num_aborted(server) < aborted + 8:
            most = max(most, server.resident_bytes())
            assert time.monotonic() < deadline, "somebody may stay without reading"
            time.sleep(0.05)
    print(f"16 clients that read nothing: {max(0, most - before) / MIB:.1f} MiB")
    assert most - before < 16 * 4 * MIB
    server.wait_metric("vllm:num_requests_running", 0)


def test_ten_thousand_idle_connections():
    # One descriptor here and one there for each; CI's limit may be lower: as many as it allows, and it is said.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(10_000, hard - 500)
    assert wanted >= 1000
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted + 400), hard))
    with Server(None, *TIMES, "--max-connections", 12_000, "--max-connections-per-address", 0, "--header-timeout-ms", 300_000,
                verb="simulate") as server, \
            contextlib.ExitStack() as stack:
        for _ in range(20):
            answer_of(server)
        before = server.resident_bytes()
        for _ in range(wanted):
            stack.enter_context(connect(server))
        deadline = time.monotonic() + 60
        while (count := server.metric("http_connections_active")) < wanted:
            assert time.monotonic() < deadline, count
            time.sleep(0.05)
        grown = server.resident_bytes() - before
        print(f"{wanted} idle connections: {grown / wanted / 1024:.1f} KiB each")
        assert grown / wanted < 16 * 1024
        answer_of(server)
        with WebSocket(server.port) as stream:
            stream.send({"prompt": "x", "max_tokens": 1})
            assert stream.receive_answer()[-1]["finish_reason"]
        stack.close()
        deadline = time.monotonic() + 60
        while server.metric("http_connections_active") > 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
