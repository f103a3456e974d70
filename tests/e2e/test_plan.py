"""`sextant advise plan` and `compare`, and the advisor's HTTP face, through the program. Needs no model."""

import http.client
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import jsonschema
import pytest
import server_process

SCHEMA = server_process.ROOT / "advisor" / "spec" / "spec_1.schema.json"
CHAT = {"task_type": "chatbot", "users": 5000, "priority": "cost"}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A knowledge base and a cache of this module's own."""
    folder = tmp_path_factory.mktemp("advisor")
    return dict(os.environ, SEXTANT_KB=str(folder / "kb.sqlite"), SEXTANT_CACHE=str(folder / "cache"), SEXTANT_API_KEY="")


def advise(home, verb, *arguments, code=0, stdin=None):
    with open(stdin or os.devnull, "rb") as file:
        run = server_process.sextant("advise", verb, *arguments, env=home, timeout=300, stdin=file)
    assert run.returncode == code, run.stderr + run.stdout
    return run


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    path = tmp_path_factory.mktemp("spec") / "chat.json"
    path.write_text(json.dumps(CHAT))
    return path


def test_the_schema_in_the_tree_is_the_one_that_reading_uses(home):
    printed = json.loads(advise(home, "plan", "--print-schema").stdout)
    assert printed == json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(printed)
    jsonschema.validate(CHAT, printed)


def test_a_plan_in_three_forms(home, spec, tmp_path):
    first = advise(home, "plan", spec, "--as-of", "2026-02-01", "--json").stdout
    assert advise(home, "plan", spec, "--as-of", "2026-02-01", "--json").stdout == first
    plan = json.loads(first)
    assert plan["schema"] == "sextant.plan/1" and plan["verdict"] == "feasible" and len(plan["options"]) >= 3
    for form in ("json", "md", "html"):
        advise(home, "plan", spec, "--as-of", "2026-02-01", "--output", tmp_path / f"plan.{form}")
    assert json.loads((tmp_path / "plan.json").read_text()) == plan
    html = (tmp_path / "plan.html").read_text()
    assert plan["plan_id"] in html and plan["options"][0]["model_id"] in html
    assert "http" not in html.replace("http-equiv", "") and "<script" not in html
    markdown = (tmp_path / "plan.md").read_text()
    assert plan["plan_id"] in markdown
    for section in ("Architecture", "Stack", "Decisions", "Other ways to pay", "One model on two types of GPU"):
        assert f"\n## {section}\n" in markdown and f"<h2>{section}</h2>" in html, section
    run = advise(home, "plan", "-", "--as-of", "2026-02-01", "--json", "--solve-for", "max_users", stdin=spec)
    assert json.loads(run.stdout)["answers"]["max_users"]["value"] >= CHAT["users"] * 0.5


@pytest.mark.parametrize("content,named", [
    (b'{"peak_rps": -1}', "peak_rps"), (b"\xff", "UTF-8"), (b"[" * 100000, "nested"), (b'{"peak_rps": 1e999}', "JSON"),
    (b'{"users": 10, "preferred_models": ["Qwen/Qwen3-32"]}', "Qwen/Qwen3-32B"), (b'{"users": 10, "concurrent_users": 20}', "concurrent_users"),
    (b'{"users": 10, "bugdet": {}}', "budget"), (b"", "JSON"),
])
def test_bad_specs_end_with_two_and_say_why(home, tmp_path, content, named):
    path = tmp_path / "spec.json"
    path.write_bytes(content)
    run = advise(home, "plan", path, "--output", tmp_path / "plan.html", code=2)
    assert named in run.stderr and run.stdout == "" and not (tmp_path / "plan.html").exists()


def test_what_cannot_be_ends_with_three(home, tmp_path):
    path = tmp_path / "spec.json"
    path.write_text('{"peak_rps": 1, "target_tpot_p90_ms": 0.1}')
    plan = json.loads(advise(home, "plan", path, "--json", code=3).stdout)
    assert plan["options"] == [] and any("target_tpot_p90_ms of" in (r["nearest_change"] or "") for r in plan["rejected"])


def test_scenarios_side_by_side_and_what_new_data_changed(home, spec, tmp_path):
    faster = tmp_path / "faster.json"
    faster.write_text(json.dumps(dict(CHAT, target_tpot_p90_ms=20)))
    same = json.loads(advise(home, "compare", spec, spec, "--json").stdout)
    assert all(d in (None, 0) for row in same["rows"] for d in row["differences_to_first"])
    rows = {row["figure"]: row["values"] for row in json.loads(advise(home, "compare", spec, faster, "--json").stdout)["rows"]}
    assert rows["tpot_p90_ms"][1] <= 20
    best = json.loads(advise(home, "plan", spec, "--json").stdout)["options"][0]
    site = best["sites"][0]
    run = server_process.sextant("kb", "set-price", "--provider", site["provider"], "--instance", site["instance"], "--region", site["region"],
                                 "--gpu", best["gpu"], "--gpu-count", site["gpus_per_instance"], "--on-demand",
                                 f"{site['usd_per_instance_hour'] / 2:.6f}", "--date", "2026-02-01", "--source", "test", env=home)
    assert run.returncode == 0, run.stderr
    rows = {row["figure"]: row["values"] for row in json.loads(advise(home, "compare", spec, "--kb-revision", "1", "--json").stdout)["rows"]}
    assert rows["usd_per_month"][1] < rows["usd_per_month"][0]


@pytest.fixture(scope="module")
def face(home):
    process = subprocess.Popen([server_process.BINARY, "advisor", "--port", "0"], env=home, stderr=subprocess.PIPE, text=True)
    try:
        port = None
        for line in process.stderr:
            if "ready at http://127.0.0.1:" in line:
                port = int(line.split("ready at http://127.0.0.1:")[1].split()[0])
                break
        assert port, "the advisor ended before it was ready"
        yield port
        process.terminate()
        process.stderr.read()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def ask(port, method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    connection.request(method, path, data, {"Content-Type": "application/json"} if data is not None else {})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def test_the_face_gives_the_plan_of_the_command_line(home, face, spec):
    status, plan = ask(face, "POST", "/advisor/v1/recommendations", {"spec": CHAT, "as_of": "2026-02-01"})
    assert status == 200
    assert plan == json.loads(advise(home, "plan", spec, "--as-of", "2026-02-01", "--json").stdout)
    status, filled = ask(face, "POST", "/advisor/v1/specification", CHAT)
    assert status == 200 and filled["specification"]["peak_rps"]["source"] == "derived"
    assert all(filled["spec"][field] == CHAT[field] for field in CHAT)
    status, compared = ask(face, "POST", "/advisor/v1/compare", {"scenarios": [{"name": "a", "spec": CHAT}, {"name": "b", "spec": dict(CHAT, users=50000)}]})
    rows = {row["figure"]: row["values"] for row in compared["rows"]}
    assert status == 200 and rows["usd_per_month"][1] >= rows["usd_per_month"][0]
    status, predicted = ask(face, "POST", "/advisor/v1/predict", {"model_id": "Qwen/Qwen3-32B", "gpu": "h100_sxm", "quantization": "fp8", "concurrency": [64, 1]})
    assert status == 200 and [row["concurrency"] for row in predicted["loads"]] == [1, 64]
    assert predicted["loads"][0]["ttft"]["mean_ms"] <= predicted["loads"][1]["ttft"]["mean_ms"]


def test_errors_name_fields_and_store_nothing(face):
    before = ask(face, "GET", "/advisor/v1/kb/prices?limit=1000")
    for path, body, status, param in (
            ("recommendations", {"spec": {"users": -1}}, 400, "users"), ("recommendations", {"spec": {"users": 1, "concurrent_users": 2}}, 422, "concurrent_users"),
            ("recommendations", {"spec": {"users": 1, "available_gpus": ["H1000"]}}, 422, "available_gpus"), ("recommendations", {"sepc": {}}, 400, "sepc"),
            ("predict", {"model_id": "none", "gpu": "L4"}, 422, "model_id"), ("predict", {"model_id": "none"}, 400, "gpu"),
            ("specification", b"\xff", 400, None), ("specification", b"[" * 100000, 400, None), ("compare", {"scenarios": []}, 400, "scenarios"),
            ("kb/prices", {"provider": "x", "instance": "y"}, 400, "region"), ("kb/models", {"model_id": "m", "architecture": "a", "facts": {}}, 400, "facts.hidden_size")):
        answered, error = ask(face, "POST", f"/advisor/v1/{path}", body)
        assert (answered, error["error"]["param"]) == (status, param), (path, error)
        assert set(error["error"]) == {"message", "type", "param", "code", "details"} and error["error"]["details"]
    assert ask(face, "GET", "/advisor/v1/kb/prices?limit=1000") == before


def test_lists_page_and_documents_are_added(face):
    names, after = [], ""
    while True:
        status, page = ask(face, "GET", "/advisor/v1/kb/gpus?limit=10" + (f"&after={after}" if after else ""))
        assert status == 200 and len(page["data"]) <= 10
        names += [row["id"] for row in page["data"]]
        if not page["has_more"]:
            break
        after = page["last_id"].replace(" ", "%20").replace("(", "%28").replace(")", "%29")
    assert len(names) == len(set(names)) > 20 and names == sorted(names)
    outcome = {"deployment_id": "d1", "model_id": "m", "gpu": "L4", "gpu_count": 2, "actual_metrics": {"ttft_p90_ms": 120}}
    assert ask(face, "POST", "/advisor/v1/kb/outcomes", outcome)[0] == 201
    assert ask(face, "POST", "/advisor/v1/kb/outcomes", outcome)[0] == 200
    assert ask(face, "GET", "/api/data/health")[0] == 200


def test_the_face_keeps_its_openapi_document(face, tmp_path):
    """schemathesis: no answer outside the document, no bad input accepted, no good one refused, on every route."""
    program = pathlib.Path(sys.executable).with_name("st")
    if not program.exists():
        program = shutil.which("st")
    if not program:
        pytest.skip("schemathesis is not installed (tests/e2e/requirements.txt)")
    # Of the form and yet contradictory is 422: no schema can say that an average lies below its peak.
    (tmp_path / "schemathesis.toml").write_text('[checks.positive_data_acceptance]\nexpected-statuses = ["2xx", "401", "403", "404", "409", "422"]\n')
    begun = time.monotonic()
    run = subprocess.run([program, "--config-file", tmp_path / "schemathesis.toml", "run", f"http://127.0.0.1:{face}/advisor/v1/openapi.json", "--checks", "all",
                          "--phases", "examples,fuzzing", "--max-examples", "5", "--generation-deterministic", "--max-time", "14", "--workers", "1",
                          "--request-timeout", "60", "--no-color", "--warnings", "off"], capture_output=True, text=True, timeout=200, cwd=tmp_path, check=False)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    print(f"{time.monotonic() - begun:.1f} s")
