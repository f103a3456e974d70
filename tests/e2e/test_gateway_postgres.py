"""Keys, tenants and usage in a real PostgreSQL: shared by servers, as lasting as in a folder, and no outage when it is away."""

import concurrent.futures
import json
import signal

import pytest
from gateway_support import TIMES, admin, bearer, complete, make_key, wait_until
from postgres_server import PostgresServer
from server_process import Server, sextant


@pytest.fixture(scope="module")
def database():
    with PostgresServer() as running:
        yield running


@pytest.fixture
def url(database):
    """Running, whatever the test before did to it."""
    if not database.is_running:
        database.start()
    return database.url


def serve(url, *arguments):
    return Server(None, *TIMES, "--database-url", url, *arguments, verb="simulate")


def usage_of(url, key_id):
    """Requests and output tokens of one key, over all days; a test may run across midnight."""
    rows = [row for row in json.loads(admin("usage", "--json", state=url))["usage"] if row["key_id"] == key_id]
    return sum(row["requests"] for row in rows), sum(row["completion_tokens"] for row in rows)


def test_a_tenant_that_one_server_erases_has_gone_on_all(url):
    key, _ = make_key(url, "--tenant", "leaving")
    stays, _ = make_key(url, "--tenant", "staying")
    admin_key, _ = make_key(url, "--role", "admin")
    with serve(url) as one, serve(url) as other:
        assert [complete(server, key).status for server in (one, other)] == [200, 200]

        def exported():
            return one.get("/admin/v1/tenants/leaving/export", headers=bearer(admin_key)).body
        # Of two days, should it be midnight.
        wait_until(lambda: sum(json.loads(line).get("requests", 0) for line in exported().splitlines()) == 2,
                   "both servers' usage is written", 60)
        erased = one.request("DELETE", "/admin/v1/tenants/leaving", None, bearer(admin_key))
        assert erased.status == 200 and (erased.json["keys"], erased.json["usage_rows"] >= 1) == (1, True), erased.body
        assert complete(one, key).status == 401 and complete(one, stays).status == 200
        wait_until(lambda: complete(other, key).status == 401, "the key ends on the other", 60)
        assert complete(other, stays).status == 200 and '"kind":"usage"' not in exported()
        assert "nothing is known" in admin("tenants", "export", "leaving", state=url, code=2)


def test_a_key_works_on_every_server_and_ends_on_all(url):
    key, key_id = make_key(url, "--tenant", "shop")
    admin("tenants", "set", "shop", "--models", "bytes", state=url)
    with serve(url) as one, serve(url) as other:
        assert complete(one, key).status == complete(other, key).status == 200
        later, _ = make_key(url)  # while they run
        for server in (one, other):
            wait_until(lambda server=server: complete(server, later).status == 200, "the new key works")
        admin("keys", "revoke", key_id, state=url)
        for server in (one, other):
            wait_until(lambda server=server: complete(server, key).status == 401, "the revoked key ends")
        # One revokes by HTTP, the other hears of it.
        admin_key, _ = make_key(url, "--role", "admin")
        wait_until(lambda: one.get("/admin/v1/keys", headers=bearer(admin_key)).status == 200, "the admin's key works")
        made = one.post("/admin/v1/keys", {"name": "till"}, headers=bearer(admin_key)).json
        wait_until(lambda: complete(other, made["key"]).status == 200, "the key of one works on the other")
        assert one.request("DELETE", f"/admin/v1/keys/{made['key_id']}", None, bearer(admin_key)).status == 200
        wait_until(lambda: complete(other, made["key"]).status == 401, "it ends there too")


def test_usage_of_two_servers_adds_up_and_outlives_them(url):
    key, key_id = make_key(url, "--limit", "requests_per_s=0")
    with serve(url) as one, serve(url) as other:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(lambda i: complete((one, other)[i % 2], key, max_tokens=7).status, range(60)))
        assert statuses == [200] * 60
        wait_until(lambda: usage_of(url, key_id) == (60, 420), "both have written")
        # What a kill finds unwritten is lost: what came in the last second.
        one.terminate(signal.SIGKILL)
        one.wait_end()
        assert complete(other, key, max_tokens=7).status == 200
        other.terminate(signal.SIGTERM)  # and here nothing is
        assert other.wait_end() == 0
    assert usage_of(url, key_id) == (61, 427)
    with serve(url) as again:
        assert complete(again, key, max_tokens=7).status == 200
        wait_until(lambda: usage_of(url, key_id) == (62, 434), "counting goes on")


def test_a_daily_quota_is_one_for_all_servers(url):
    key, _ = make_key(url, "--tenant", "quota", "--limit", "tokens_per_day=100")
    with serve(url) as one, serve(url) as other:
        for _ in range(3):
            assert complete(one, key, max_tokens=20).status == 200  # 23 or 24 tokens each
        wait_until(lambda: complete(other, key, max_tokens=40).status == 429, "the other has read what was used")
        assert complete(other, key, max_tokens=40).error["code"] == "insufficient_quota"


@pytest.mark.parametrize("mode", ["immediate", "fast"])
def test_a_database_that_is_away_is_no_outage(url, database, mode):
    key, key_id = make_key(url, "--limit", "requests_per_s=0")
    admin_key, _ = make_key(url, "--role", "admin")
    with serve(url) as server:
        assert complete(server, key).status == 200
        wait_until(lambda: usage_of(url, key_id)[0] == 1, "the first is written")
        database.stop(mode)
        # Known keys work on, unknown ones do not, health is what it was, and the log says what is the matter.
        assert [complete(server, key).status for _ in range(20)] == [200] * 20
        assert complete(server, "sk-sextant-unknown").status == 401
        assert server.get("/ready").status == server.get("/health").status == 200
        wait_until(lambda: "the state store does not answer" in server.log(), "the log says it")
        # Changes cannot be made, and that is said.
        refused = server.post("/admin/v1/keys", {"name": "later"}, headers=bearer(admin_key))
        assert refused.status == 503, refused.body
        database.start()
        wait_until(lambda: "the state store answers again" in server.log(), "it is back")
        wait_until(lambda: usage_of(url, key_id)[0] == 21, "what waited is written, once")
        fresh = server.post("/admin/v1/keys", {"name": "later"}, headers=bearer(admin_key))
        assert fresh.status in (200, 201) and complete(server, fresh.json["key"]).status == 200
        log = server.log()
    assert all(secret not in log for secret in (key, admin_key))


def test_starting_without_the_database_says_so(database, url):
    database.stop()
    run = sextant("simulate", *TIMES, "--port", "0", "--database-url", url.replace("advisor@", "advisor:hidden-word@"))
    assert run.returncode == 1
    assert "cannot open the state" in run.stderr and "hidden-word" not in run.stderr
    assert "cannot open the state" in admin("keys", "list", state=url, code=1)
