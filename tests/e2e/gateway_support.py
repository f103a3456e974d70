"""What tests of the gateway share: keys and tokens, requests that carry them, waiting for what another process does."""

import base64
import hashlib
import hmac
import json
import time

from server_process import sextant

TIMES = ("--time", "constant:ttft=1ms,tpot=0ms")
SHARED_SECRET = b"a shared secret of thirty-two by"


def bearer(key):
    return {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}


def store(state):
    """The flags of a state that is in a folder, or in PostgreSQL."""
    return ("--database-url", state) if str(state).startswith("postgresql://") else ("--state-dir", state)


def admin(*arguments, state, code=0, env=None):
    run = sextant("admin", *arguments, *store(state), env=env)
    assert run.returncode == code, run.stdout + run.stderr
    return run.stdout.strip() if code == 0 else run.stderr


def make_key(state, *arguments):
    """The key and its id."""
    made = json.loads(admin("keys", "create", "--json", *arguments, state=state))
    return made["key"], made["key_id"]


def complete(server, key, **fields):
    return server.post("/v1/completions", {"model": "bytes", "prompt": "abc", "max_tokens": 4, "seed": 1, "ignore_eos": True, **fields},
                       headers=bearer(key))


def token(secret=SHARED_SECRET, kid="one", **claims):
    """A signed token (HS256) of tenant `shop` that holds for an hour."""
    def part(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")
    body = {"iss": "test", "aud": "sextant", "exp": int(time.time()) + 3600, "sub": "ann", "tenant": "shop", **claims}
    signed = part(json.dumps({"alg": "HS256", "kid": kid}).encode()) + b"." + part(json.dumps(body).encode())
    return (signed + b"." + part(hmac.new(secret, signed, hashlib.sha256).digest())).decode()


def jwk_set(secret=SHARED_SECRET, kid="one"):
    return json.dumps({"keys": [{"kty": "oct", "kid": kid, "alg": "HS256",
                                 "k": base64.urlsafe_b64encode(secret).decode().rstrip("=")}]})


def wait_until(condition, what, timeout_s=30):
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not come true in {timeout_s} s"
        time.sleep(0.02)
    return value
