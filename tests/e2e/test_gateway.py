"""The gateway in front of a real server: who is let in where, how much each key may do, and what is kept of it."""

import concurrent.futures
import json
import os
import re
import signal
import time

import pytest
from gateway_support import TIMES, admin, bearer, complete, jwk_set, make_key, token, wait_until
from server_process import Server, sextant

ROLES = ("inference", "metrics", "advisor", "admin")
REFUSED_TOKENS = ("token-expired", "token-audience", "token-issuer", "token-forged")


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    return tmp_path_factory.mktemp("gateway") / "state"


@pytest.fixture(scope="module")
def keys(state):
    """One key of each role, one that has ended and one that was revoked."""
    made = {role: make_key(state, "--role", role)[0] for role in ROLES}
    made["expired"], _ = make_key(state, "--role", ",".join(ROLES), "--expires", "1s")
    made["revoked"], revoked_id = make_key(state, "--role", ",".join(ROLES))
    admin("keys", "revoke", revoked_id, state=state)
    made |= {f"token-{role}": token(roles=[role]) for role in ROLES}
    made["token-expired"] = token(roles=ROLES, exp=int(time.time()) - 3600)
    made["token-audience"] = token(roles=ROLES, aud="other")
    made["token-issuer"] = token(roles=ROLES, iss="other")
    made["token-forged"] = token(b"another secret of thirty-two byt", roles=ROLES)
    return made


@pytest.fixture(scope="module")
def gateway(state, keys, tmp_path_factory):
    jwks = tmp_path_factory.mktemp("keys") / "jwks.json"
    jwks.write_text(jwk_set())
    with Server(None, *TIMES, "--state-dir", state, "--jwks", jwks, "--jwt-audience", "sextant", "--jwt-issuer", "test", "--failed-logins-per-minute", "0", "--unauthenticated-per-s", "0",
                "--log-level", "debug", verb="simulate") as running:
        yield running


def test_every_route_for_every_key(gateway, keys):
    """The list of routes is the server's own: one that nobody thought of is tried too."""
    routes = gateway.get("/admin/v1/routes", headers=bearer(keys["admin"])).json["routes"]
    assert len(routes) > 25 and {"/v1/completions", "/metrics", "/admin/v1/keys", "/health"} <= {r["path"] for r in routes}
    time.sleep(max(0.0, 1.1 - (time.monotonic() - gateway.begin)))  # the key that ends has ended by now
    for route in routes:
        if route["path"] == "/admin/v1/drain":
            continue  # below, where it may do what it does
        path = route["path"].replace("*", "no-such")
        access = route["access"]
        assert access in ("open", "any", *ROLES), route

        def status(key, method=route["method"], where=path):
            headers = bearer(key) if key else {"Content-Type": "application/json"}
            return gateway.request(method, where, "{}" if method in ("POST", "PUT") else None, headers).status

        if access == "open":
            assert all(status(key) not in (401, 403) for key in (None, "sk-wrong", keys["inference"])), route
            continue
        for name, key in {"none": None, "wrong": "sk-wrong", "expired": keys["expired"], "revoked": keys["revoked"],
                          "cut": keys["admin"][:-1], "longer": keys["admin"] + "A",
                          **{name: key for name, key in keys.items() if name in REFUSED_TOKENS}}.items():
            assert status(key) == 401, (route, name)
        for role in ROLES:
            is_let_in = access in ("any", role)
            assert (status(keys[role]) not in (401, 403)) == is_let_in, (route, role)
            assert is_let_in or status(keys[role]) == 403, (route, role)
            assert (status(keys[f"token-{role}"]) not in (401, 403)) == is_let_in, (route, role)


def test_open_routes_say_nothing_else(gateway):
    open_paths = {"/health", "/ping", "/ready", "/"}
    for path in ("/version", "/metrics", "/v1/models", "/admin/v1/config", "/advisor/v1/openapi.json"):
        assert path not in open_paths
        answer = gateway.get(path)
        assert answer.status == 401 and answer.headers["www-authenticate"] == "Bearer", path
        assert answer.error["code"] == "invalid_api_key"


def test_secrets_are_nowhere(gateway, keys, state):
    complete(gateway, keys["inference"])
    complete(gateway, "sk-sextant-wrong-secret-value")
    places = {"log": gateway.log(),
              "metrics": gateway.get("/metrics", headers=bearer(keys["metrics"])).body,
              "config": gateway.get("/admin/v1/config", headers=bearer(keys["admin"])).body,
              "keys": gateway.get("/admin/v1/keys", headers=bearer(keys["admin"])).body,
              "refusal": complete(gateway, "sk-sextant-wrong-secret-value").body,
              "printed": sextant("serve", "x.gguf", "--print-config", "--api-key", "sk-printed", "--database-url",
                                 "postgresql://u:hidden-word@h/d").stdout,
              "state": b"".join(path.read_bytes() for path in state.iterdir()).decode(errors="replace")}
    for place, text in places.items():
        assert text, place
        for secret in [*keys.values(), "wrong-secret-value", "sk-printed", "hidden-word"]:
            assert secret not in text, place
            # Neither the random part alone (base64url: it may hold a "-" of its own, so it is not the piece after the last one).
            assert len(secret) < 40 or secret[-43:] not in text, place
    assert os.stat(state).st_mode & 0o777 == 0o700
    assert os.stat(state / "state.sqlite").st_mode & 0o777 == 0o600


def test_a_key_that_another_process_revokes_stops_within_a_second(gateway, state):
    key, key_id = make_key(state)
    wait_until(lambda: complete(gateway, key).status == 200, "the new key works")
    admin("keys", "revoke", key_id, state=state)
    revoked = time.monotonic()
    wait_until(lambda: complete(gateway, key).status == 401, "the revoked key stops")
    # The server looks five times a second; what a loaded machine adds is not the server's.
    assert time.monotonic() - revoked < 10
    assert "revoked" in complete(gateway, key).error["message"]


def test_keys_over_http_rotate_and_end(gateway, keys):
    def ask(path, body=None, method="POST"):
        return gateway.request(method, f"/admin/v1/{path}", body, bearer(keys["admin"]))

    made = ask("keys", {"tenant": "shop", "name": "till", "roles": ["inference"], "limits": {"max_tokens": 5}}).json
    assert re.fullmatch(r"sk-sextant-[0-9a-f]{12}-[A-Za-z0-9_-]{43}", made["key"])
    assert complete(gateway, made["key"]).status == 200
    assert complete(gateway, made["key"], max_tokens=6).status == 400
    rotated = ask(f"keys/{made['key_id']}/rotate", {"overlap_s": 3600}).json
    assert rotated["replaces"] == made["key_id"]
    assert complete(gateway, made["key"]).status == complete(gateway, rotated["key"]).status == 200
    assert complete(gateway, rotated["key"], max_tokens=6).status == 400  # what it may is the same
    # Two at most.
    assert ask(f"keys/{made['key_id']}/rotate", {}).status == 400
    assert ask(f"keys/{rotated['key_id']}/rotate", {}).status == 400
    assert ask(f"keys/{made['key_id']}", method="DELETE").json["state"] == "revoked"
    assert complete(gateway, made["key"]).status == 401
    again = ask(f"keys/{rotated['key_id']}/rotate", {"overlap_s": 0}).json
    assert complete(gateway, rotated["key"]).status == 401 and complete(gateway, again["key"]).status == 200
    listed = {key["key_id"]: key for key in ask("keys", method="GET").json["keys"]}
    assert listed[again["key_id"]]["tenant"] == "shop" and "key" not in listed[again["key_id"]]
    for wrong, param in (({"roles": ["root"]}, "roles"), ({"limits": {"max": 1}}, "limits"), ({"tenant": "a b"}, "tenant"),
                         ({"limits": {"max_tokens": -1}}, "limits"), ({"nmae": "x"}, "nmae"), ({"expires": 5}, "expires"),
                         ({"name": 7}, "name"), ({"expires_in_s": 1e300}, "expires_in_s")):
        answer = ask("keys", wrong)
        assert answer.status == 400 and answer.error["param"] == param, wrong
    assert ask("keys", "[" * 60000).status == ask("keys", "null").status == 400
    assert ask("keys", "[" * 100000).status == 413
    assert ask("keys/none/rotate", {}).status == 404 and ask("keys/none/paint", {}).status == 404


def test_a_tenant_sees_its_models_alone(gateway, keys, state):
    key, _ = make_key(state, "--tenant", "narrow")
    admin("tenants", "set", "narrow", "--models", "other-model", state=state)
    wait_until(lambda: complete(gateway, key).status == 404, "the allow-list is in force")
    assert complete(gateway, key).error["code"] == "model_not_found"
    assert gateway.get("/v1/models", headers=bearer(key)).json["data"] == []
    admin("tenants", "set", "narrow", "--models", "other-model,bytes", state=state)
    wait_until(lambda: complete(gateway, key).status == 200, "the model is allowed")


def test_requests_per_second_are_exact_under_many_clients(gateway, state):
    key, _ = make_key(state, "--limit", "requests_per_s=20", "--limit", "request_burst=200")
    wait_until(lambda: gateway.get("/v1/models", headers=bearer(key)).status == 200, "the key is known")
    begin = time.monotonic()

    def ask(_):
        answer = gateway.get("/v1/models", headers=bearer(key))
        return answer.status, answer.headers
    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(ask, range(600)))
    seconds = time.monotonic() - begin
    passed = sum(status == 200 for status, _ in answers)
    assert {status for status, _ in answers} <= {200, 429}
    # The bucket was full up to what the waiting above took, and fills on while they come.
    assert 195 <= passed <= 200 + 20 * seconds + 1
    refused = next(headers for status, headers in answers if status == 429)
    assert int(refused["retry-after"]) >= 1 and refused["x-ratelimit-limit-requests"] == "200"
    assert refused["x-ratelimit-remaining-requests"] == "0" and "x-ratelimit-reset-requests" in refused


def test_tokens_are_reserved_and_given_back(gateway, state):
    key, _ = make_key(state, "--limit", "tokens_per_minute=600")
    wait_until(lambda: complete(gateway, key).status == 200, "the key is known")
    # 3 prompt tokens and 500 reserved; it stops by itself long before, and the rest comes back.
    for _ in range(3):
        assert complete(gateway, key, max_tokens=500, stop=["e", "a", " "], ignore_eos=False).status == 200
    too_many = complete(gateway, key, max_tokens=700)
    assert too_many.status == 400 and too_many.error["code"] == "key_limit_exceeded"
    answers = [complete(gateway, key, max_tokens=250) for _ in range(4)]
    refused = [answer for answer in answers if answer.status == 429]
    assert refused and all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert refused[0].headers["x-ratelimit-limit-tokens"] == "600"


def test_requests_at_once(state):
    key, _ = make_key(state, "--limit", "concurrent_requests=2")
    with Server(None, "--time", "constant:ttft=1ms,tpot=20ms", "--state-dir", state, verb="simulate") as slow:
        client = slow.client(api_key=key)
        streams = [client.completions.create(model="bytes", prompt="x", max_tokens=2000, stream=True, extra_body={"ignore_eos": True})
                   for _ in range(2)]
        for one in streams:
            next(iter(one))
        third = complete(slow, key)
        assert third.status == 429 and third.error["code"] == "concurrency_limit_exceeded"
        streams[0].close()
        wait_until(lambda: complete(slow, key).status == 200, "a place is free")
        streams[1].close()


def test_wrong_keys_are_slowed_down_and_right_ones_are_not(state, keys):
    with Server(None, *TIMES, "--state-dir", state, "--failed-logins-per-minute", "5", "--trusted-proxies", "127.0.0.0/8",
                verb="simulate") as server:
        def status(key, client):
            return server.post("/v1/completions", {"prompt": "x", "max_tokens": 1},
                               headers={**bearer(key), "X-Forwarded-For": client}).status
        assert [status("sk-no", "8.8.8.8") for _ in range(5)] == [401] * 5
        assert status("sk-no", "8.8.8.8") == 429
        assert status("sk-no", "9.9.9.9") == 401  # another one
        assert status("sk-no", "7.7.7.7, 8.8.8.8") == 429  # what a client writes itself does not count
        assert status(keys["inference"], "8.8.8.8") == 200


def test_usage_outlives_the_process(state, keys):
    key, key_id = make_key(state, "--tenant", "counted", "--limit", "tokens_per_day=100")
    with Server(None, *TIMES, "--state-dir", state, verb="simulate") as server:
        assert [complete(server, key, max_tokens=20).status for _ in range(3)] == [200] * 3  # 23 or 24 tokens each

        def rows():
            return [row for row in json.loads(admin("usage", "--json", state=state))["usage"] if row["key_id"] == key_id]
        # At most a second behind: what is there then is there after the kill.
        before = wait_until(lambda: [row for row in rows() if row["requests"] == 3], "usage is written")[0]
        server.terminate(signal.SIGKILL)
        server.wait_end()
    assert rows()[0] == before and before["completion_tokens"] == 60 and before["model"] == "bytes"
    with Server(None, *TIMES, "--state-dir", state, verb="simulate") as server:
        full = complete(server, key, max_tokens=40)
        assert full.status == 429 and full.error["code"] == "insufficient_quota"
        assert 0 < int(full.headers["retry-after"]) <= 86400
        assert complete(server, key, max_tokens=10).status == 200
        csv = server.get("/admin/v1/usage?format=csv", headers=bearer(keys["admin"]))
        assert csv.headers["content-type"].startswith("text/csv") and key_id in csv.body
        assert server.get("/admin/v1/usage?from=yesterday", headers=bearer(keys["admin"])).status == 400


def test_drain_and_log_level(state, keys):
    with Server(None, *TIMES, "--state-dir", state, verb="simulate") as server:
        def ask(path, body):
            return server.post(f"/admin/v1/{path}", body, headers=bearer(keys["admin"]))
        assert ask("log-level", {"level": "debug"}).json == {"level": "debug"}
        server.get("/health")
        wait_until(lambda: "GET /health 200" in server.log(), "debug lines are written")
        assert ask("log-level", {"level": "loud"}).status == 400
        assert server.get("/admin/v1/models", headers=bearer(keys["admin"])).json["models"][0]["ready"] is True
        assert ask("drain", {}).status == 202
        assert server.wait_end() == 0
        assert "admin: " in server.log() and "drain: done" in server.log()


def test_errors_at_start_come_all_at_once(tmp_path):
    run = sextant("serve", "none.gguf", "--host", "0.0.0.0", "--port", "99999", "--trusted-proxies", "ten.0.0.0/8",
                  "--shed-fallback-model", "small", "--limit-max-n", "-1", "--log-level", "loud")
    assert run.returncode == 2
    for text in ("--host", "--port", "--trusted-proxies", "--shed-fallback-model", "--limit-max-n", "--log-level"):
        assert text in run.stderr, text
    both = sextant("serve", "none.gguf", "--state-dir", tmp_path, "--database-url", "postgresql://h/d")
    assert both.returncode == 2 and "exclude each other" in both.stderr
    assert "give one of" in sextant("admin", "keys", "list", env={"SEXTANT_STATE_DIR": ""}).stderr
