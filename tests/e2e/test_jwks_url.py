"""Signed tokens whose keys come from a live URL: rotation, an identity provider that says nonsense."""

import base64
import hashlib
import hmac
import http.server
import json
import threading
import time

import pytest
from server_process import Server

SECRET = b"a shared secret of thirty-two by"
OTHER_SECRET = b"another secret of thirty-two byt"


def part(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(secret=SECRET, kid="one", **claims):
    body = {"iss": "test", "aud": "sextant", "exp": int(time.time()) + 3600, "sub": "ann", "roles": ["inference"], **claims}
    signed = part(json.dumps({"alg": "HS256", "kid": kid}).encode()) + "." + part(json.dumps(body).encode())
    return signed + "." + part(hmac.new(secret, signed.encode(), hashlib.sha256).digest())


def jwk_set(*secrets):
    return json.dumps({"keys": [{"kty": "oct", "kid": kid, "alg": "HS256", "k": part(secret)} for kid, secret in secrets]})


class KeyServer:
    """Answers with `status`, `body` and `headers`; counts how often it was asked."""

    def __init__(self):
        self.status, self.body, self.headers, self.num_asked = 200, jwk_set(("one", SECRET)), {}, 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.num_asked += 1
                body = outer.body.encode()
                try:
                    self.send_response(outer.status)
                    for name, value in outer.headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    pass

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/keys"

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def keys():
    running = KeyServer()
    yield running
    running.close()


def serve(keys):
    return Server(None, "--time", "constant:ttft=1ms,tpot=0ms", "--jwks", keys.url, "--jwt-audience", "sextant", "--jwt-issuer", "test",
                  "--failed-logins-per-minute", "0", verb="simulate")


def status(server, bearer):
    return server.post("/v1/completions", {"model": "bytes", "prompt": "abc", "max_tokens": 4},
                       headers={"Authorization": f"Bearer {bearer}", "Content-Type": "application/json"}).status


def wait_until(condition, what, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true in {timeout_s} s"
        time.sleep(0.1)


def test_a_new_key_is_fetched_when_its_first_token_comes(keys):
    with serve(keys) as server:
        assert status(server, token()) == 200
        asked, begin = keys.num_asked, time.monotonic()
        keys.body = jwk_set(("one", SECRET), ("two", OTHER_SECRET))
        # Not within ten seconds of the last time; then the first token brings it.
        wait_until(lambda: status(server, token(OTHER_SECRET, "two")) == 200, "the new key is there")
        assert keys.num_asked - asked <= 1 + (time.monotonic() - begin) / 10
        assert status(server, token()) == 200


def test_unknown_key_ids_do_not_flood_who_has_the_keys(keys):
    with serve(keys) as server:
        asked, begin = keys.num_asked, time.monotonic()
        for i in range(200):
            assert status(server, token(OTHER_SECRET, f"made-up-{i}")) == 401
        assert keys.num_asked - asked <= 1 + (time.monotonic() - begin) / 10
        assert status(server, token()) == 200


@pytest.mark.parametrize("change", [{"status": 302, "headers": {"Location": "/elsewhere"}, "body": jwk_set(("two", OTHER_SECRET))},
                                    {"status": 404, "body": jwk_set(("two", OTHER_SECRET))}, {"body": "{"}, {"body": "[" * 500000},
                                    {"body": jwk_set(("two", OTHER_SECRET)) + " " * 1100000}],
                         ids=["moved", "missing", "malformed", "nested", "huge"])
def test_what_is_no_answer_changes_nothing(keys, change):
    with serve(keys) as server:
        assert status(server, token()) == 200
        for name, value in change.items():
            setattr(keys, name, value)
        asked = keys.num_asked

        def is_asked():
            assert status(server, token(OTHER_SECRET, "two")) == 401
            return keys.num_asked > asked and "keys for tokens: " in server.log()
        wait_until(is_asked, "they are asked for again")
        assert status(server, token(OTHER_SECRET, "two")) == 401
        assert status(server, token(sub="bob")) == 200  # by the last good keys, though this one was never seen
