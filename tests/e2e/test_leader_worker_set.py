"""deploy/leaderworkerset.yaml: valid against LeaderWorkerSet's schema, and its command is one that `sextant serve` takes."""

import json
import os
import pathlib

import jsonschema
import pytest
import server_process
import yaml

MANIFEST = server_process.ROOT / "deploy" / "leaderworkerset.yaml"


@pytest.fixture(scope="module")
def documents():
    return {document["kind"]: document for document in yaml.safe_load_all(MANIFEST.read_text())}


def container(documents):
    return documents["LeaderWorkerSet"]["spec"]["leaderWorkerTemplate"]["workerTemplate"]["spec"]["containers"][0]


def test_the_manifest_is_valid(documents):
    schemas = pathlib.Path(os.environ.get("SEXTANT_SCHEMAS", server_process.ROOT.parent / "shared" / "schemas"))
    schema = schemas / "leaderworkerset.x-k8s.io" / "leaderworkerset_v1.json"
    if not schema.is_file():
        pytest.skip(f"no schemas of custom resources at {schemas} (SEXTANT_SCHEMAS)")
    validator = jsonschema.Draft202012Validator(json.loads(schema.read_text()))
    assert [error.message for error in validator.iter_errors(documents["LeaderWorkerSet"])] == []
    wrong = json.loads(json.dumps(documents["LeaderWorkerSet"]))
    wrong["spec"]["leaderWorkerTemplate"]["sice"] = 2
    assert list(validator.iter_errors(wrong)), "the schema finds what is wrong"


@pytest.mark.parametrize("index", ["0", "1"])
def test_the_command_is_one_that_serve_takes(documents, index):
    arguments = [argument.replace("$(LWS_GROUP_SIZE)", str(documents["LeaderWorkerSet"]["spec"]["leaderWorkerTemplate"]["size"]))
                 .replace("$(LWS_WORKER_INDEX)", index).replace("$(LWS_LEADER_ADDRESS)", "sextant-0.sextant.default")
                 for argument in container(documents)["args"]]
    assert not [argument for argument in arguments if "$(" in argument]
    secrets = {variable["name"]: "secret" for variable in container(documents)["env"]}
    arguments.remove("/models/model")
    answer = server_process.sextant(*arguments, "--print-config", env=secrets)
    assert answer.returncode == 0, answer.stderr
    printed = json.loads(answer.stdout)
    assert (printed["nnodes"], printed["node_rank"]) == (2, int(index))
    assert printed["group_secret"] == printed["api_key"] == "***"
    # Without the secrets it would not start.
    without = server_process.sextant(*arguments, "--print-config")
    assert without.returncode == 2
    assert "SEXTANT_GROUP_SECRET" in without.stderr and "SEXTANT_API_KEY" in without.stderr


def test_requests_go_to_the_leader_which_is_ready_with_all(documents):
    selector = documents["Service"]["spec"]["selector"]
    assert selector["leaderworkerset.sigs.k8s.io/worker-index"] == "0"
    assert container(documents)["readinessProbe"]["httpGet"]["path"] == "/ready"
    ports = {port["name"]: port["containerPort"] for port in container(documents)["ports"]}
    arguments = dict(argument.lstrip("-").split("=", 1) for argument in container(documents)["args"] if "=" in argument)
    assert (str(ports["http"]), str(ports["group"])) == (arguments["port"], arguments["master-port"])
