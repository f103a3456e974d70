"""What is kept of a tenant is given out and erased: state, usage, cached answers and audit records, over HTTP and by the command line;
the audit log's chain still holds, and says who erased. Over the simulator: needs no model."""

import json

import pytest
from gateway_support import TIMES, admin, bearer, complete, make_key, store, wait_until
from server_process import Server, sextant


@pytest.fixture()
def place(tmp_path):
    state, audit = tmp_path / "state", tmp_path / "audit"
    keys = {"shop": make_key(state, "--tenant", "shop", "--name", "till-of-the-shop")[0], "other": make_key(state, "--tenant", "other")[0],
            "admin": make_key(state, "--tenant", "operators", "--role", "admin")[0]}
    return state, audit, keys


def lines_of(text):
    return [json.loads(line) for line in text.splitlines()]


def kinds(lines):
    return [line["kind"] for line in lines]


def usage_of(lines):
    """Requests and output tokens; of two days, should it be midnight."""
    rows = [line for line in lines if line["kind"] == "usage"]
    return sum(row["requests"] for row in rows), sum(row["completion_tokens"] for row in rows)


def verify(audit):
    run = sextant("admin", "audit", "verify", "--json", "--audit-dir", audit)
    assert run.returncode == 0, run.stdout + run.stderr
    return json.loads(run.stdout)


def test_a_tenant_is_exported_and_erased_over_http(place):
    state, audit, keys = place
    with Server(None, *TIMES, "--state-dir", state, "--audit-log", audit, "--audit-prompts", "--response-cache-bytes", "1000000",
                verb="simulate") as server:
        def ask(method, path, body=None, key="admin"):
            return server.request(method, f"/admin/v1/tenants/{path}", body, bearer(keys[key]))

        def wait_for_records(tenant, count):
            """A request is recorded when its answer has been sent: the client may be faster."""
            wait_until(lambda: kinds(lines_of(ask("GET", f"{tenant}/export").body)).count("audit") >= count, "all is recorded", 60)
        for tenant, count in (("shop", 5), ("other", 2)):
            for i in range(count):
                assert complete(server, keys[tenant], prompt=f"prompt-of-{tenant}-{i}").status == 200
        assert complete(server, keys["shop"], prompt="prompt-of-shop-0").headers["x-cache"] == "hit"
        wait_for_records("shop", 6)
        wait_until(lambda: usage_of(lines_of(ask("GET", "shop/export").body)) == (5, 20), "usage is counted; a hit costs nothing", 60)

        first = ask("GET", "shop/export?limit=4")
        assert first.status == 200 and first.headers["content-type"] == "application/x-ndjson"
        lines = lines_of(first.body)
        assert [kind for kind in kinds(lines) if kind != "usage"] == ["tenant", "key", *["cached_answer"] * 5, *["audit"] * 4, "end"]
        assert lines[1]["name"] == "till-of-the-shop" and keys["shop"] not in first.body and "hash" not in first.body
        rest = lines_of(ask("GET", f"shop/export?limit=4&after={lines[-1]['next']}").body)
        assert kinds(rest) == ["audit", "audit", "end"] and rest[-1]["next"] is None
        prompts = [line["prompt"] for line in lines + rest if line["kind"] == "audit"]
        assert prompts == [f"<bos>prompt-of-shop-{i}" for i in (0, 1, 2, 3, 4, 0)]
        assert "prompt-of-other" not in first.body
        remote = {"SEXTANT_ADMIN_KEY": keys["admin"]}
        run = sextant("admin", "tenants", "export", "shop", "--url", server.url, env=remote)
        assert run.returncode == 0 and len(lines_of(run.stdout)) == len(lines) - 1 + 2, run.stderr

        for wrong, status in (("shop/export?after=x", 400), ("shop/export?limit=-1", 400), ("shop/other", 404), ("shop", 404),
                              ("a%20b/export", 404), ("/export", 404), ("shop/export/more", 404)):
            assert ask("GET", wrong).status == status, wrong
        assert [ask("DELETE", name).status for name in ("nobody", "shop/erase", "..", "a%27")] == [404] * 4
        assert ask("DELETE", "shop", {"tenant": "other"}).status == 400
        assert ask("DELETE", "operators").status == 400  # the only admin's
        assert ask("DELETE", "shop", key="shop").status == 403
        assert complete(server, keys["shop"], prompt="still there").status == 200
        wait_for_records("shop", 8)  # with the 403

        erased = ask("DELETE", "shop")
        assert erased.status == 200, erased.body
        counts = erased.json
        assert (counts["tenant"], counts["tenants"], counts["keys"], counts["cached_answers"]) == ("shop", 1, 1, 6)
        assert counts["usage_rows"] >= 1 and counts["audit_records"] == 8
        assert complete(server, keys["shop"]).status == 401
        assert complete(server, keys["other"], prompt="prompt-of-other-0").headers["x-cache"] == "hit"
        wait_for_records("other", 3)
        assert kinds(lines_of(ask("GET", "shop/export").body)) == ["end"]
        assert ask("DELETE", "shop").status == 404
        assert ask("POST", "other/erase").json["keys"] == 1
        # The tenant's own 403 was audited under its name and is gone; who erased stays.
        records = server.get("/admin/v1/audit", headers=bearer(keys["admin"])).json["records"]
        done = [(record["target"], record["outcome"]) for record in records if record["action"] == "tenants.erase"]
        assert ("shop", "done") in done and ("other", "done") in done and ("", "failed") in done
        server.terminate()
        assert server.wait_end() == 0
    report = verify(audit)
    assert report["problems"] == [] and report["erased"] == 8 + 3
    text = b"".join(path.read_bytes() for path in [*audit.iterdir(), *state.iterdir()])
    assert b"prompt-of-" not in text and b"still there" not in text and b"till-of-the-shop" not in text


def test_a_tenant_is_erased_by_the_command_line(place):
    state, audit, keys = place
    with Server(None, *TIMES, "--state-dir", state, "--audit-log", audit, verb="simulate") as server:
        assert complete(server, keys["shop"]).status == 200

        def kept():
            return set(kinds(lines_of(sextant("admin", "tenants", "export", "shop", "--audit-dir", audit, *store(state)).stdout)))
        wait_until(lambda: kept() == {"tenant", "key", "usage", "audit"}, "usage and the record are on disk", 60)
        refused = sextant("admin", "tenants", "erase", "shop", "--audit-dir", audit, *store(state))
        assert refused.returncode == 1 and "another process" in refused.stderr
        assert server.get("/v1/models", headers=bearer(keys["shop"])).status == 200  # nothing was half done
        assert "keys" in admin("tenants", "erase", "other", state=state)  # the state alone
        wait_until(lambda: complete(server, keys["other"]).status == 401, "the key stops", 60)
        server.terminate()
        assert server.wait_end() == 0
    run = sextant("admin", "tenants", "export", "shop", "--audit-dir", audit, *store(state))
    assert run.returncode == 0 and kinds(lines_of(run.stdout)) == ["tenant", "key", "usage", "audit", "audit"], run.stdout + run.stderr
    run = sextant("admin", "tenants", "erase", "shop", "--json", "--audit-dir", audit, *store(state))
    assert run.returncode == 0 and json.loads(run.stdout)["audit_records"] == 2, run.stdout + run.stderr
    assert verify(audit)["erased"] == 2
    run = sextant("admin", "audit", "export", "--audit-dir", audit)
    assert (lines_of(run.stdout)[-1]["action"], lines_of(run.stdout)[-1]["target"]) == ("tenants.erase", "shop")
    for arguments in (("erase", "shop"), ("erase",), ("export", "shop"), ("export", "a b")):
        assert sextant("admin", "tenants", *arguments, *store(state)).returncode == 2, arguments
    assert sextant("admin", "tenants", "erase", "x", "--audit-dir", audit, "--url", "http://127.0.0.1:1",
                   env={"SEXTANT_ADMIN_KEY": "k"}).returncode == 2
