"""The container image: built with buildah around the program that is already compiled, then run as a hardened runtime would.

Skipped, with the reason, where this machine cannot build images (no root, no buildah, no package source).
"""

import hashlib
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("SEXTANT_BINARY", ROOT / "build" / "release" / "server" / "sextant"))
WORK = ROOT / "build" / "image"
BUILDAH = ["buildah", "--root", str(WORK / "storage"), "--runroot", str(WORK / "run"), "--storage-driver", "vfs"]
MAX_BYTES = 200_000_000
BUILD_TIMEOUT_S = 1200


def run(*command, timeout=120, **options):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=timeout, check=False, **options)


def checked(*command, **options):
    result = run(*command, **options)
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_hadolint_has_nothing_to_say(kind):
    hadolint = shutil.which("hadolint", path=f"{ROOT / 'build' / 'venv' / 'bin'}:{os.environ['PATH']}")
    assert hadolint, "hadolint stands in tests/e2e/requirements.txt"
    checked(hadolint, "--failure-threshold", "style", ROOT / "deploy" / f"Dockerfile.{kind}")


class TestArguments:
    @pytest.mark.parametrize("arguments, says", [
        (["--nonsense"], "unknown argument '--nonsense'"),
        (["--tag"], "--tag needs a value"),
        (["--tag", "No Name"], "not 'No Name'"),
        (["--binary", "/nowhere"], "no program at '/nowhere'"),
        (["--ccache", "/nowhere"], "no folder '/nowhere'"),
    ])
    def test_bad_ones_are_named(self, arguments, says):
        result = run(ROOT / "deploy" / "build-image.sh", *arguments)
        assert result.returncode == 2
        assert says in result.stderr

    def test_help_says_what_there_is(self):
        text = checked(ROOT / "deploy" / "build-image.sh", "--help")
        for option in set(re.findall(r"--[a-z]+(?=\))|--[a-z]+(?=\|)", (ROOT / "deploy" / "build-image.sh").read_text())):
            assert option in text or option in ("--help", "--cpu")


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    sbom = tmp_path_factory.mktemp("sbom") / "image.spdx.json"
    result = run(ROOT / "deploy" / "build-image.sh", "--binary", BINARY, "--tag", "sextant:test", "--work", WORK, "--sbom", sbom,
                 timeout=BUILD_TIMEOUT_S)
    if result.returncode == 77:
        pytest.skip("no image was built here: " + result.stderr.strip().splitlines()[-1])
    assert result.returncode == 0, result.stderr
    image_id, size = result.stdout.split()[-2:]
    container = checked(*BUILDAH, "from", image_id).strip()
    try:
        config = json.loads(checked(*BUILDAH, "inspect", "--type", "image", image_id))["Docker"]["config"]
        yield {"root": checked(*BUILDAH, "mount", container).strip(), "config": config, "bytes": int(size), "sbom": sbom}
    finally:
        run(*BUILDAH, "rm", container)


def test_size(image):
    print(f"the image takes {image['bytes'] / 1e6:.1f} MB")
    assert image["bytes"] <= MAX_BYTES


def test_its_bill_of_materials_is_valid_and_complete(image):
    sbom = json.loads(image["sbom"].read_text())
    validator = shutil.which("pyspdxtools", path=f"{ROOT / 'build' / 'venv' / 'bin'}:{os.environ['PATH']}")
    assert validator, "spdx-tools stands in tests/e2e/requirements.txt"
    checked(validator, "--infile", image["sbom"])
    root = pathlib.Path(image["root"])
    status = (root / "var" / "lib" / "dpkg" / "status").read_text()
    installed = {re.search("^Package: (.*)$", entry, re.MULTILINE)[1] for entry in status.split("\n\n") if "\nStatus: install ok installed\n" in entry}
    packages = {package["SPDXID"]: package for package in sbom["packages"]}
    assert installed and {package["name"] for key, package in packages.items() if key.startswith("SPDXRef-deb-")} == installed
    program = hashlib.sha256((root / "usr" / "local" / "bin" / "sextant").read_bytes()).hexdigest()
    assert packages["SPDXRef-program"]["checksums"] == [{"algorithm": "SHA256", "checksumValue": program}]
    contained = {each["relatedSpdxElement"] for each in sbom["relationships"] if each["relationshipType"] == "CONTAINS"}
    assert contained == packages.keys() - {"SPDXRef-image"}
    broken = image["sbom"].with_name("broken.spdx.json")
    broken.write_text(json.dumps({**sbom, "spdxVersion": "SPDX-9"}))
    assert run(validator, "--infile", broken).returncode != 0


def test_configuration(image):
    config = image["config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["/usr/local/bin/sextant"]
    assert config["StopSignal"] == "SIGTERM"
    assert list(config["Volumes"]) == ["/var/cache/sextant"]
    assert config["Healthcheck"]["Test"][0] == "CMD"
    labels = config["Labels"]
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert re.fullmatch(r"[0-9a-f]{40}|unknown", labels["org.opencontainers.image.revision"])


def test_neither_sources_nor_compilers_are_in_it(image):
    root = pathlib.Path(image["root"])
    for path in ("usr/bin/g++", "usr/bin/cmake", "usr/bin/git", "source", "var/cache/ccache"):
        assert not (root / path).exists(), path


def in_image(image, models, command, timeout=300):
    script = ROOT / "tests" / "image" / "in_image.sh"
    return run(script, image["root"], next(iter(image["config"]["Volumes"])), models, command, timeout=timeout)


def test_its_root_and_models_are_read_only_and_its_user_is_nobody(image, tmp_path):
    os.chmod(tmp_path, 0o777)
    result = in_image(image, tmp_path, """
        id -u; id -g; grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status
        for place in /usr/local/bin /models /etc /tmp /; do
          if touch "$place/written" 2>/dev/null; then echo "$place can be written"; fi
        done
        touch /var/cache/sextant/written && echo volume""")
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["65532", "65532", "CapEff:", "0000000000000000", "CapBnd:", "0000000000000000",
                                     "NoNewPrivs:", "1", "volume"]


def test_answers_a_chat_request_and_its_health_check_agrees(image, tmp_path):
    model = os.environ.get("SEXTANT_TEST_MODEL", "")
    if not model:
        pytest.skip("SEXTANT_TEST_MODEL is not set to the path of the default model's GGUF file")
    models = tmp_path / "models"
    models.mkdir()
    os.chmod(tmp_path, 0o755)
    shutil.copyfile(model, models / "model.gguf")
    config = image["config"]
    serve = shlex.join([*config["Entrypoint"], "serve", "model.gguf", "--served-model-name", "smollm2"])
    health = shlex.join(config["Healthcheck"]["Test"][1:])
    question = json.dumps({"model": "smollm2", "temperature": 0, "max_tokens": 16,
                           "messages": [{"role": "user", "content": "Please name the capital of France."}]})
    result = in_image(image, models, f"""
        cd {shlex.quote(config["WorkingDir"])}
        {health} && {{ echo 'healthy before it started' >&2; exit 1; }}
        {serve} >/var/cache/sextant/log 2>&1 &
        server=$!
        trap 'cat /var/cache/sextant/log >&2; kill -9 $server' EXIT
        until {health}; do kill -0 $server; sleep 0.1; done
        until curl -sf -o /dev/null http://127.0.0.1:8000/ready; do kill -0 $server; sleep 0.1; done
        curl -sS --fail-with-body -H 'Content-Type: application/json' -d {shlex.quote(question)} \
          http://127.0.0.1:8000/v1/chat/completions
        trap - EXIT
        kill -TERM $server
        wait $server""")
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert "Paris" in answer["choices"][0]["message"]["content"]
    assert answer["usage"]["completion_tokens"] > 0
