"""HTTPS: every form of answer over TLS, certificates of clients, renewal while serving, hostile handshakes, the end by SIGTERM.
Over the simulator: needs no model. Certificates are made by the openssl command."""

import concurrent.futures
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time

import openai
import pytest
from bench_support import bench, point
from server_process import Server, sextant
from websocket_client import WebSocket

TIMES = ("--time", "constant:ttft=5ms,tpot=1ms")
SLOW = ("--time", "constant:ttft=20ms,tpot=20ms")
LONG = {"prompt": "Once", "max_tokens": 100_000, "ignore_eos": True, "stream": True}


def openssl(*arguments, **options):
    run = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False, **options)
    assert run.returncode == 0, run.stderr
    return run


class Pair:
    """name.pem and name.key in a folder; signed by itself, or by another."""

    def __init__(self, folder, name, issuer=None, days=90, password=None):
        self.certificate, self.key = folder / f"{name}.pem", folder / f"{name}.key"
        request = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", f"/O=Sextant tests/CN={name}",
                   "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", self.key]
        request += ["-passout", f"pass:{password}"] if password else ["-nodes"]
        if issuer:
            openssl(*request, "-x509", "-CA", issuer.certificate, "-CAkey", issuer.key, "-days", days, "-out", self.certificate,
                    "-addext", "basicConstraints=critical,CA:FALSE")
        else:
            openssl(*request, "-x509", "-days", days, "-out", self.certificate)
        self.key.chmod(0o600)

    def flags(self):
        return "--ssl-certfile", self.certificate, "--ssl-keyfile", self.key


def asks(authority, own=None):
    context = ssl.create_default_context(cafile=str(authority.certificate))
    if own:
        context.load_cert_chain(str(own.certificate), str(own.key))
    return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Pair(tmp_path_factory.mktemp("authority"), "authority")


@pytest.fixture(scope="module")
def pair(authority):
    return Pair(authority.key.parent, "server", authority)


@pytest.fixture(scope="module")
def server(authority, pair):
    with Server(None, *TIMES, *pair.flags(), "--header-timeout-ms", 4000, verb="simulate", tls=asks(authority)) as running:
        yield running


def secure(server, context=None):
    raw = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    return (context or server.tls).wrap_socket(raw, server_hostname="127.0.0.1")


def begin_stream(server, connection=None):
    connection = connection or http.client.HTTPSConnection("127.0.0.1", server.port, timeout=60, context=server.tls)
    connection.request("POST", "/v1/completions", json.dumps(LONG), {"Content-Type": "application/json"})
    response = connection.getresponse()
    assert response.status == 200 and response.readline().startswith(b"data: ")
    return connection, response


def test_the_openai_client_speaks_it(server):
    client = server.client()
    model = client.models.list().data[0].id
    whole = client.completions.create(model=model, prompt="A good day", max_tokens=12, seed=3)
    pieces = client.completions.create(model=model, prompt="A good day", max_tokens=12, seed=3, stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == whole.choices[0].text
    chat = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hi"}], max_tokens=4)
    assert chat.usage.completion_tokens == 4
    stranger = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    with pytest.raises(openai.APIConnectionError):  # who does not know the authority does not talk
        stranger.models.list()


def test_lines_of_json_and_websockets(server):
    body = {"prompt": "A good day", "max_tokens": 12, "seed": 7}
    text = server.post("/generate", body).json["response"]
    lines = [json.loads(line) for line in server.post("/v1/stream", body).body.splitlines()]
    assert "".join(line["delta"] for line in lines[:-1]) == text and lines[-1]["finish_reason"] == "length"
    with WebSocket(server.port, tls=server.tls) as stream:
        for _ in range(3):
            stream.send(body)
            frames = stream.receive_answer()
            assert "".join(frame["delta"] for frame in frames[:-1]) == text
        stream.send({**LONG, "prompt": "x"})
        stream.receive()
        stream.send({"cancel": True})
        assert stream.receive_answer()[-1]["finish_reason"] == "abort"
    server.wait_metric("vllm:num_requests_running", 0)


def test_curl(server, authority):
    def curl(*arguments):
        return subprocess.run(["curl", "-sS", "--max-time", "30", *map(str, arguments)], capture_output=True, text=True, check=False)

    trusted = "--cacert", authority.certificate
    for version in ("--tlsv1.2", "--tlsv1.3"):
        assert json.loads(curl(*trusted, version, f"{server.url}/v1/models").stdout)["object"] == "list"
    assert curl(f"{server.url}/v1/models").returncode == 60  # an authority that it does not know
    assert curl(*trusted, "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0", f"{server.url}/health").returncode == 35
    large = "x" * 200_000
    run = subprocess.run(["curl", "-sS", *map(str, trusted), "-d", "@-", "-H", "Content-Type: application/json", f"{server.url}/tokenize"],
                         input=json.dumps({"prompt": large}), capture_output=True, text=True, timeout=60, check=False)
    assert json.loads(run.stdout)["count"] >= 200_000
    plain = curl("-i", f"http://127.0.0.1:{server.port}/v1/models")
    assert plain.stdout.startswith("HTTP/1.1 400") and "use https://" in plain.stdout


def test_a_client_that_goes_is_noticed(server):
    def close_notify(connection):
        connection.sock.settimeout(20)
        with contextlib.suppress(OSError, ValueError):
            connection.sock.unwrap()

    def close_tcp(connection):
        connection.sock.shutdown(socket.SHUT_RDWR)

    for leave in (close_notify, close_tcp):
        connection, _ = begin_stream(server)
        server.wait_metric("vllm:num_requests_running", 1)
        leave(connection)
        server.wait_metric("vllm:num_requests_running", 0)
        connection.close()


def test_certificates_of_clients(tmp_path, authority, pair):
    good = Pair(tmp_path, "good", authority)
    stranger = Pair(tmp_path, "stranger")
    bad = Pair(tmp_path, "bad", stranger)
    flags = (*TIMES, *pair.flags(), "--ssl-ca-certs", authority.certificate)

    def status(server, own):
        try:
            with secure(server, asks(authority, own)) as connection:
                connection.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                answer = b""
                while piece := connection.recv(65536):
                    answer += piece
                return int(answer.split()[1]) if answer else None
        except OSError as error:
            return type(error).__name__

    with Server(None, *flags, "--ssl-cert-reqs", 2, verb="simulate", tls=asks(authority, good), env={"SEXTANT_API_KEY": "secret"}) as server:
        assert status(server, good) == 401  # a certificate is no key
        assert server.get("/v1/models", headers={"Authorization": "Bearer secret"}).status == 200
        for own in (None, bad):
            assert "Error" in status(server, own)
    with Server(None, *flags, "--ssl-cert-reqs", 1, verb="simulate", tls=asks(authority)) as server:
        assert status(server, good) == status(server, None) == 200
        assert "Error" in status(server, bad)


def test_a_new_certificate_is_taken_while_serving(tmp_path, authority):
    old, new = Pair(tmp_path, "old", authority, days=20), Pair(tmp_path, "new", authority, days=300)
    served = tmp_path / "served"
    served.mkdir()
    flags = "--ssl-certfile", served / "tls.crt", "--ssl-keyfile", served / "tls.key"

    def install(certificate=None, key=None):
        for source, name in ((certificate, "tls.crt"), (key, "tls.key")):
            if source:
                shutil.copy(source, served / "next")
                os.replace(served / "next", served / name)

    def name_of(server):
        with secure(server) as connection:
            return dict(part[0] for part in connection.getpeercert()["subject"])["commonName"]

    install(old.certificate, old.key)
    with Server(None, *SLOW, *flags, verb="simulate", tls=asks(authority)) as server:
        assert name_of(server) == "old"
        assert 19 * 86400 < server.metric("sextant:ssl_certificate_expiry_seconds") <= 20 * 86400
        connection, response = begin_stream(server)
        reloads = "sextant:ssl_certificate_reloads_total"

        def wait_for(outcome, count):
            deadline = time.monotonic() + 30
            while server.metrics()[(reloads, (("outcome", outcome),))] < count:
                assert time.monotonic() < deadline, server.log()
                time.sleep(0.05)

        install(certificate=new.certificate)  # of another key: not taken
        wait_for("refused", 1)
        assert name_of(server) == "old" and "the old certificate stays" in server.log()
        install(key=new.key)
        wait_for("taken", 1)
        assert name_of(server) == "new"
        assert 299 * 86400 < server.metric("sextant:ssl_certificate_expiry_seconds") <= 300 * 86400
        assert response.readline() is not None and any(response.readline().startswith(b"data: ") for _ in range(5))  # goes on
        connection.close()


def test_hostile_handshakes(server):
    failed = ("sextant:ssl_handshakes_total", (("outcome", "failed"),))
    before, begin = server.metrics()[failed], time.monotonic()
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    held = []
    for i in range(200):
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        if i % 2:
            connection.sendall(hello)
        held.append(connection)
    for garbage in (b"\x00" * 100, b"\x16\x03\x01\xff\xff" + b"A" * 70_000, b"\x80\x2e\x01\x00\x02" + b"x" * 60, hello * 100,
                    b"\x15\x03\x03\x00\x02\x02\x28", b"GARBAGE\r\n\r\n", os.urandom(4096)):
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
            with contextlib.suppress(OSError):
                connection.sendall(garbage)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass
    with concurrent.futures.ThreadPoolExecutor(4) as pool:  # others are served meanwhile
        answers = list(pool.map(lambda _: server.post("/v1/completions", {"prompt": "x", "max_tokens": 2}).status, range(20)))
    assert answers == [200] * 20
    for connection in held:  # --header-timeout-ms 4000
        connection.settimeout(60)
        with contextlib.suppress(OSError):
            assert connection.recv(1) == b""
        connection.close()
    assert time.monotonic() - begin > 3
    deadline = time.monotonic() + 30
    while server.metrics()[failed] < before + 207:
        assert time.monotonic() < deadline, server.metrics()[failed] - before
        time.sleep(0.05)


def test_renegotiation_is_refused(server, authority):
    client = subprocess.Popen(["openssl", "s_client", "-tls1_2", "-connect", f"127.0.0.1:{server.port}", "-CAfile",
                               str(authority.certificate)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        time.sleep(0.5)
        client.stdin.write(b"R\n")
        client.stdin.flush()
        out = client.communicate(timeout=60)[0]
    finally:
        client.kill()
    assert b"RENEGOTIATING" in out and b"no renegotiation" in out, out
    assert server.get("/health").status == 200


def test_a_request_in_many_small_pieces(server):
    """Records and TCP segments need not meet: one byte per record, and records cut in two."""
    with secure(server) as connection:
        for byte in b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n":
            connection.sendall(bytes([byte]))
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = server.tls.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def step(action):
            while True:
                try:
                    result = action()
                except ssl.SSLWantReadError:
                    result = None
                data = outgoing.read()
                for i in range(0, len(data), 5):
                    raw.sendall(data[i:i + 5])
                if result is not None:
                    return result
                incoming.write(raw.recv(3))

        step(lambda: session.do_handshake() or True)
        step(lambda: session.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"))
        assert step(lambda: session.read(4096)).startswith(b"HTTP/1.1 200")


def test_sigterm_lets_a_stream_finish(authority, pair):
    with Server(None, *SLOW, *pair.flags(), verb="simulate", tls=asks(authority)) as server:
        results = []

        def work(ready):
            connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=60, context=server.tls)
            connection.request("POST", "/v1/completions", json.dumps({**LONG, "max_tokens": 60}), {"Content-Type": "application/json"})
            response = connection.getresponse()
            first = response.readline()
            ready.set()
            results.append(first + response.read())

        ready = threading.Event()
        thread = threading.Thread(target=work, args=(ready,))
        thread.start()
        assert ready.wait(60)
        server.terminate(signal.SIGTERM)
        assert server.wait_end() == 0
        thread.join(60)
        assert results and results[0].rstrip().endswith(b"data: [DONE]")


def test_all_that_is_wrong_is_said_at_once(tmp_path, pair):
    run = sextant("simulate", "--ssl-certfile", tmp_path / "none.pem", "--ssl-keyfile", tmp_path / "none.key", "--ssl-cert-reqs", "3",
                  "--port", "99999")
    assert run.returncode == 2
    for part in ("--ssl-certfile", "--ssl-keyfile", "--ssl-cert-reqs must be 0", "--ssl-ca-certs must be given", "--port must be"):
        assert part in run.stderr, run.stderr
    other = Pair(tmp_path, "other", password="open sesame")
    for verb in (["serve", "model.gguf"], ["simulate"], ["advisor"], ["route", "--config", tmp_path / "none.yaml"]):
        run = sextant(*verb, "--ssl-certfile", pair.certificate, "--ssl-keyfile", other.key, env={"SEXTANT_SSL_KEYFILE_PASSWORD": "guess"})
        assert run.returncode == 2 and "--ssl-keyfile-password does not open" in run.stderr, run.stderr
        assert "guess" not in run.stderr
    run = sextant("simulate", "--ssl-certfile", pair.certificate, "--ssl-keyfile", other.key, env={"SEXTANT_SSL_KEYFILE_PASSWORD": "open sesame"})
    assert run.returncode == 2 and "is not the one of the certificate" in run.stderr
    run = sextant("simulate", "--host", "0.0.0.0", *pair.flags())  # TLS says nothing of who may ask
    assert run.returncode == 2 and "reachable from other machines" in run.stderr
    run = sextant("simulate", "--ssl-certfile", other.certificate, "--ssl-keyfile", other.key, "--ssl-keyfile-password", "open sesame",
                  "--print-config")
    shown = json.loads(run.stdout)
    assert shown["ssl_keyfile_password"] == "***" and shown["ssl_certfile"] == str(other.certificate) and shown["ssl_cert_reqs"] == 0
    assert "open sesame" not in run.stdout + run.stderr


def test_an_encrypted_key_and_what_is_warned_of(tmp_path, authority):
    made = Pair(tmp_path, "warned", authority, days=3, password="open sesame")
    made.key.chmod(0o644)
    with Server(None, *TIMES, *made.flags(), verb="simulate", tls=asks(authority), env={"SEXTANT_SSL_KEYFILE_PASSWORD": "open sesame"}) as server:
        assert server.post("/v1/completions", {"prompt": "x", "max_tokens": 2}).status == 200
        log = server.log()
        assert "expires soon" in log and "every user of this machine can read" in log and "open sesame" not in log
        assert "open sesame" not in server.get("/metrics").body


def test_advisor_and_route(tmp_path, authority, pair):
    with Server(None, *pair.flags(), verb="advisor", tls=asks(authority), env={"SEXTANT_KB": str(tmp_path / "kb.sqlite")}) as server:
        assert server.get("/advisor/v1/openapi.json").status == 200
    with Server(None, *TIMES, verb="simulate") as member:
        pools = tmp_path / "pools.json"
        pools.write_text(json.dumps({"pools": [{"model": "bytes", "members": [member.url]}]}))
        with Server(None, "--config", pools, *pair.flags(), verb="route", tls=asks(authority)) as router:
            answer = router.post("/v1/completions", {"model": "bytes", "prompt": "x", "max_tokens": 3})
            assert answer.status == 200 and answer.json["usage"]["completion_tokens"] == 3
            assert router.metric("sextant:ssl_certificate_expiry_seconds") > 80 * 86400
    pools.write_text(json.dumps({"pools": [{"model": "bytes", "members": ["https://127.0.0.1:1"]}]}))
    run = sextant("route", "--config", pools, "--check")
    assert run.returncode == 2 and "asks for TLS, which is not spoken to members" in run.stderr


def test_our_own_clients(server, authority):
    arguments = ("--url", server.url, "--num-prompts", 8, "--random-input-len", 12, "--random-output-len", 4)
    knows = {"SSL_CERT_FILE": str(authority.certificate)}
    run = bench(*arguments, env=knows)
    assert run.returncode == 0 and point(run)["counts"]["finished"] == 8, run.stderr
    stranger = bench(*arguments)
    assert stranger.returncode != 0 and "certificate" in stranger.stderr.lower(), stranger.stderr
    for _, env, code in (("knows", knows, 0), ("does not", {}, 1)):
        talk = sextant("chat", "--url", server.url, "--max-tokens", 4, "Hi", env=env)
        assert talk.returncode == code, talk.stderr
