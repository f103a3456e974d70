"""/metrics as `promtool check metrics` reads it: no error, and of its lint no line but those listed here: names that others fixed.
Over the simulator: needs no model."""

import subprocess

from gateway_support import bearer, complete, jwk_set, make_key
from server_process import Server

# vLLM's names have a colon, and so have ours that stand beside them; the rest is named by requirements or by vLLM.
COLON = "metric names should not contain ':'"
LISTED = {"llm_throughput_tokens_per_sec metric names should not contain abbreviated units",
          'vllm:iteration_tokens_total non-counter metrics should not have "_total" suffix'}


def test_metrics_are_read_without_error(tmp_path):
    state, jwks = tmp_path / "state", tmp_path / "jwks.json"
    key, _ = make_key(state, "--role", "inference,metrics")
    jwks.write_text(jwk_set())
    with Server(None, "--time", "constant:ttft=1ms,tpot=0ms", "--audit-log", tmp_path / "audit", "--price-usd-per-hour", "2",
                "--response-cache-bytes", "1MiB", "--state-dir", state, "--jwks", jwks, "--jwt-audience", "sextant", "--jwt-issuer", "test",
                "--otlp-traces-endpoint", "http://127.0.0.1:9", "--redis-url", "redis://127.0.0.1:1", verb="simulate") as server:
        assert complete(server, key).status == 200
        shown = server.get("/metrics", headers=bearer(key)).body
    run = subprocess.run(["promtool", "check", "metrics"], input=shown, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode in (0, 3), run.stdout + run.stderr  # 3: lint alone
    lines = {line.strip() for line in (run.stdout + run.stderr).splitlines() if line.strip()}
    assert LISTED <= lines
    for name in ("audit_records_total", "llm_cost_usd_total", "sextant:requests_refused_total", "sextant:state_store_up",
                 "sextant:redis_up", "sextant:jwks_up", "sextant:trace_exporter_up"):
        assert f"\n{name}" in shown, name
    others = {line for line in lines - LISTED if not (line.startswith(("vllm:", "sextant:")) and line.endswith(COLON))}
    assert not others
    broken = subprocess.run(["promtool", "check", "metrics"], input=shown + "broken{ 1\n", capture_output=True, text=True, timeout=60, check=False)
    assert broken.returncode == 1
