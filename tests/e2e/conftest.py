"""One server for all tests that only ask it things; tests that stop or configure one start their own."""

import json
import os
import pathlib

import postgres_server
import pytest
import server_process

GOLDEN = server_process.ROOT / "tests" / "data" / "golden" / "smollm2-135m-instruct-q4_1.json"


@pytest.fixture(scope="session")
def model():
    path = os.environ.get("SEXTANT_TEST_MODEL", "")
    if not path:
        pytest.skip("SEXTANT_TEST_MODEL is not set to the path of the default model's GGUF file")
    assert pathlib.Path(path).is_file(), path
    return pathlib.Path(path)


@pytest.fixture(scope="session")
def server(model):
    with server_process.Server(model, "--served-model-name", "smollm2") as running:
        yield running


@pytest.fixture(scope="session")
def client(server):
    return server.client()


@pytest.fixture(scope="session")
def postgres():
    """The URL of a real PostgreSQL; tests that stop one start their own."""
    with postgres_server.PostgresServer() as running:
        yield running.url


@pytest.fixture(scope="session")
def golden():
    return json.loads(GOLDEN.read_text())


@pytest.fixture(scope="session")
def is_full():
    return os.environ.get("SEXTANT_FULL_TESTS", "0") == "1"
