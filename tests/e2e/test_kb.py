"""`sextant kb` on SQLite and on a real PostgreSQL: the same answers from both. Needs no model."""

import concurrent.futures
import json

import pytest
import server_process

DATA = server_process.ROOT / "advisor" / "data"


def kb(location, verb, *arguments, code=0):
    run = server_process.sextant("kb", verb, "--kb", location, *arguments)
    assert run.returncode == code, run.stderr + run.stdout
    return run.stdout if code == 0 else run.stderr


PRICE = ("--provider", "aws", "--instance", "test.8x", "--region", "us-east-1", "--gpu", "L4", "--gpu-count", "8",
         "--on-demand", "9.5", "--date", "2026-01-19", "--source", "test")


def fill(location, tmp_path):
    """The same additions everywhere; what they print."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"architectures": ["LlamaForCausalLM"], "hidden_size": 576, "num_hidden_layers": 30,
                                  "num_attention_heads": 9, "num_key_value_heads": 3, "intermediate_size": 1536,
                                  "vocab_size": 49152, "tie_word_embeddings": True}))
    return [kb(location, "set-price", *PRICE),
            kb(location, "set-price", *PRICE),
            kb(location, "add-gpu", "Some GPU", "--memory-gib", "24", "--memory-gb-per-s", "1008", "--alias", "sg"),
            kb(location, "add-model", config, "--id", "test/smol", "--license", "apache-2.0"),
            kb(location, "import", DATA / "cloud_prices.csv"),
            kb(location, "list", "models"),
            kb(location, "list", "gpus", "--limit", "3", "--after", "B300-SXM-288GB")]


def test_both_databases_hold_and_say_the_same(postgres, tmp_path):
    sqlite = tmp_path / "kb.sqlite"
    said = fill(sqlite, tmp_path)
    assert said == fill(postgres, tmp_path)
    assert said[0] == "1 added, 0 replaced, 0 unchanged; revision 2\n"
    assert said[1] == "0 added, 0 replaced, 1 unchanged; revision 2\n"
    assert "50 unchanged" in said[4]
    assert "test/smol" in said[5]
    exported = kb(sqlite, "export")
    assert exported == kb(postgres, "export")
    # What is exported is what another imports.
    (tmp_path / "all.jsonl").write_text(exported)
    copy = tmp_path / "copy.sqlite"
    kb(copy, "import", tmp_path / "all.jsonl")
    assert kb(copy, "export") == exported
    body = json.loads(kb(sqlite, "list", "models", "--json", "--after", "test/smal", "--limit", "1"))["body"]
    assert body["computed"]["parameters"] == pytest.approx(134.5e6, rel=0.01)
    assert body["approved_for_production"] is None and body["license"] == "apache-2.0"
    health = json.loads(kb(sqlite, "health", "--as-of", "2026-03-01", "--json"))
    assert health == json.loads(kb(postgres, "health", "--as-of", "2026-03-01", "--json"))
    assert health["status"] == "warnings" and health["rules"]["stale_price"] > 10


def test_writers_at_once_lose_nothing(postgres, tmp_path):
    for location in (postgres, tmp_path / "kb.sqlite"):
        kb(location, "list", "gpus")
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            said = list(pool.map(lambda i: kb(location, "add-gpu", f"GPU {i}", "--memory-gib", "8", "--memory-gb-per-s", "100"), range(6)))
        assert len(set(said)) == 6  # each its own revision
        names = kb(location, "list", "gpus").splitlines()
        assert all(f"GPU {i}" in names for i in range(6))


def test_impossible_rows_are_named(tmp_path):
    header, first = (DATA / "measured_serving.csv").read_text().splitlines()[:2]
    columns = first.split(",")
    columns[header.split(",").index("tpot_mean_ms")] = "0.01"
    (tmp_path / "fast.csv").write_text(header + "\n" + ",".join(columns) + "\n")
    kb(tmp_path / "kb.sqlite", "import", tmp_path / "fast.csv")
    run = server_process.sextant("kb", "health", "--kb", tmp_path / "kb.sqlite", "--as-of", "2026-01-20")
    assert run.returncode == 1
    assert "below_bandwidth_floor" in run.stdout and "1 benchmarks quarantined" in run.stdout


@pytest.mark.parametrize("arguments,named", [
    (("set-price", *PRICE[:-4], "--date", "2026-02-30", "--source", "x"), "--date"),
    (("set-price", *PRICE[:8], "--gpu-count", "-1", "--on-demand", "1", "--source", "x"), "--gpu-count"),
    (("add-gpu", "X"), "--memory-gib"), (("add-gpu", "X", "--memory-gib", "1e99", "--memory-gb-per-s", "1"), "--memory-gib"),
    (("add-model", "/no/such", "--id", "a/b"), "/no/such"), (("import", "/no/such"), "/no/such"),
    (("import", "/dev/null"), "empty"), (("list", "dreams"), "dreams"), (("health", "--as-of", "soon"), "--as-of"),
])
def test_bad_input_is_named_and_stores_nothing(tmp_path, arguments, named):
    location = tmp_path / "kb.sqlite"
    assert named in kb(location, arguments[0], *arguments[1:], code=2)
    assert not location.exists()


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "kb.sqlite").write_bytes(b"x" * 5000)
    assert "not a database" in kb(tmp_path / "kb.sqlite", "list", "gpus", code=1)
    assert "cannot open" in kb(f"postgresql://nobody@/none?host={tmp_path}", "list", "gpus", code=1)
