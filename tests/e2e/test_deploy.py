"""`sextant deploy render` and `validate`: every document against exactly one schema, the chart against the manifests, rules by
promtool, and each semantic check by a defect that is put in. Needs no model."""

import copy
import difflib
import json
import os
import pathlib
import subprocess
import tarfile

import deploy_plans
import jsonschema
import kubernetes_validate
import pytest
import ruamel.yaml
import server_process
import yaml

KUBERNETES = "1.34"
CORE = {"v1", "apps/v1", "autoscaling/v2", "policy/v1", "networking.k8s.io/v1", "rbac.authorization.k8s.io/v1"}
OF_KUBECTL = {"kustomize.config.k8s.io/v1beta1"}  # checked by building them
UNVALIDATED = {"networking.istio.io/v1"}          # said so in their annotations and in the notes


def render(plan, *options, code=0, output=None, folder=None):
    path = pathlib.Path(folder) / "plan.json"
    path.write_text(json.dumps(plan))
    run = server_process.sextant("deploy", "render", "--plan", path, *(["--output", output] if output else []), *options)
    assert run.returncode == code, run.stdout[-3000:] + run.stderr
    return run


def documents_of(path):
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    out = {}
    for name, (plan, options) in deploy_plans.MATRIX.items():
        folder = tmp_path_factory.mktemp(name)
        render(plan, *options, output=folder / "bundle", folder=folder)
        out[name] = folder / "bundle"
    return out


def manifests_of(bundle):
    return [(path.name, document) for path in sorted((bundle / "kubernetes" / "base").glob("*.yaml")) for document in documents_of(path)]


@pytest.mark.parametrize("name", deploy_plans.MATRIX)
def test_every_document_is_claimed_by_one_validator_and_passes(bundles, name):
    schemas = deploy_plans.schemas()
    skipped = set()
    for file, document in manifests_of(bundles[name]):
        version, kind = document["apiVersion"], document["kind"]
        group, _, short = version.partition("/")
        schema = schemas / group / f"{kind.lower()}_{short}.json" if schemas else None
        custom = version not in CORE | OF_KUBECTL | UNVALIDATED
        assert not (version in CORE and schema and schema.is_file()), f"{file}: {kind} has two validators"
        if version in CORE:
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
        elif version in UNVALIDATED:
            assert document["metadata"]["annotations"]["sextant/validated"] == "false"
        elif custom and schemas:
            assert schema.is_file(), f"{file}: nobody validates {version} {kind}"
            errors = list(jsonschema.Draft202012Validator(json.loads(schema.read_text())).iter_errors(document))
            assert not errors, f"{file}: {kind}: {[(list(e.path), e.message[:300]) for e in errors]}"
        elif custom:
            skipped.add(kind)
    if skipped:
        pytest.skip(f"no schemas of custom resources (SEXTANT_SCHEMAS): {sorted(skipped)} were not validated")


@pytest.mark.parametrize("name", deploy_plans.MATRIX)
def test_nothing_is_found_in_what_is_rendered(bundles, name):
    run = server_process.sextant("deploy", "validate", bundles[name], "--json")
    report = json.loads(run.stdout)
    assert run.returncode == 0 and report["findings"] == [], report["findings"]
    assert report["objects"] >= 6 and report["queries"] > 60


@pytest.mark.parametrize("name", [*deploy_plans.TYPICAL, "llmisvc-keda", "hostile"])
def test_the_chart_gives_the_same_objects_and_the_overlays_build(bundles, name, tmp_path_factory):
    helm, kubectl = deploy_plans.kubernetes_tools(str(tmp_path_factory.getbasetemp()))
    env = {"HOME": str(tmp_path_factory.getbasetemp()), "PATH": os.environ["PATH"]}
    chart = next((bundles[name] / "helm").iterdir())
    linted = subprocess.run([helm, "lint", "--strict", chart], capture_output=True, text=True, env=env, timeout=60, check=False)
    assert linted.returncode == 0, linted.stdout + linted.stderr
    made = subprocess.run([helm, "template", "x", chart], capture_output=True, text=True, env=env, timeout=60, check=False)
    assert made.returncode == 0, made.stderr
    key = lambda document: (document["kind"], document["metadata"]["name"])
    of_chart = {key(document): document for document in yaml.safe_load_all(made.stdout) if document}
    rendered = {key(document): document for _, document in manifests_of(bundles[name]) if document["kind"] != "Kustomization"}
    assert of_chart == rendered
    for overlay in ("staging", "production"):
        folder = bundles[name] / "kubernetes" / "overlays" / overlay
        built = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, env=env, timeout=60, check=False)
        assert built.returncode == 0, built.stderr
        kinds = {document["kind"] for document in yaml.safe_load_all(built.stdout) if document}
        assert "Namespace" in kinds and (overlay == "production" or "PrometheusRule" not in kinds)


@pytest.mark.parametrize("name", deploy_plans.MATRIX)
def test_rules_are_well_formed_and_each_alert_fires_and_clears(bundles, name):
    folder = bundles[name] / "monitoring"
    commands = [["check", "rules", "rules.yaml"]]
    # The tests take seconds: where rules differ in kind. Ours with GPUs, vLLM's, a budget that cannot burn fast, no goals.
    if name in ("ingress", "vllm-pool", "fixed", "no-goals"):
        commands.append(["test", "rules", "rules_test.yaml"])
    for command in commands:
        run = subprocess.run(["promtool", *command], cwd=folder, capture_output=True, text=True, timeout=240, check=False)
        assert run.returncode == 0, run.stdout + run.stderr
    rules = documents_of(folder / "rules.yaml")[0]
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule}
    tests = documents_of(folder / "rules_test.yaml")[0]["tests"]
    tried = {(case["alertname"], bool(case["exp_alerts"])) for test in tests for case in test["alert_rule_test"]}
    assert tried == {(alert, fires) for alert in alerts for fires in (True, False)} and len(alerts) >= 7
    of_operator = [document["spec"] for _, document in manifests_of(bundles[name]) if document["kind"] == "PrometheusRule"]
    assert of_operator == [rules]


def test_a_rule_test_can_fail(bundles, tmp_path):
    for file in ("rules.yaml", "rules_test.yaml"):
        text = (bundles["one-small"] / "monitoring" / file).read_text()
        (tmp_path / file).write_text(text.replace("> 100", "> 1000") if file == "rules.yaml" else text)
    run = subprocess.run(["promtool", "test", "rules", "rules_test.yaml"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode != 0 and "QueueBacklog" in run.stdout + run.stderr


@pytest.mark.parametrize("name", ["ingress", "simulated", "hostile"])
def test_every_reader_of_yaml_reads_the_same(bundles, name):
    for path in bundles[name].rglob("*.yaml"):
        if "templates" in path.parts:
            continue
        old = documents_of(path)
        reader = ruamel.yaml.YAML(typ="safe", pure=True)
        assert json.loads(json.dumps(list(reader.load_all(path.read_text())))) == json.loads(json.dumps(old)), path


@pytest.mark.parametrize("name", deploy_plans.TYPICAL)
def test_typical_plans_are_emitted_as_reviewed(name, tmp_path):
    plan, options = deploy_plans.TYPICAL[name]
    render(plan, *options, output=tmp_path / "all.yaml", folder=tmp_path)
    now = (tmp_path / "all.yaml").read_text()
    golden = deploy_plans.DATA / f"{name}.yaml"
    if os.environ.get("SEXTANT_UPDATE_GOLDEN") == "1":
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(now)
    reviewed = golden.read_text()
    assert now == reviewed, "SEXTANT_UPDATE_GOLDEN=1 writes it anew; review the difference:\n" + "".join(
        difflib.unified_diff(reviewed.splitlines(True), now.splitlines(True), "reviewed", "now", n=2))


def test_folder_file_and_archive_hold_the_same(tmp_path):
    plan, options = deploy_plans.MATRIX["ingress"]
    render(plan, *options, output=tmp_path / "bundle", folder=tmp_path)
    render(plan, *options, output=tmp_path / "bundle.tar", folder=tmp_path)
    files = {str(path.relative_to(tmp_path / "bundle")): path.read_bytes() for path in (tmp_path / "bundle").rglob("*")
             if path.is_file() and path.name != ".sextant-bundle"}
    with tarfile.open(tmp_path / "bundle.tar") as archive:
        assert {member.name.removeprefix("bundle/"): archive.extractfile(member).read() for member in archive.getmembers()} == files
    printed = json.loads(render(plan, *options, "--json", folder=tmp_path).stdout)["files"]
    assert {name: text.encode() for name, text in printed.items()} == files
    # Again into the same folder: what is not rendered any more goes, what is the user's stays.
    (tmp_path / "bundle" / "mine.txt").write_text("mine")
    render(plan, "--no-monitoring", output=tmp_path / "bundle", folder=tmp_path)
    assert (tmp_path / "bundle" / "mine.txt").exists() and not (tmp_path / "bundle" / "monitoring" / "rules.yaml").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "precious").write_text("x")
    assert "--force" in render(plan, output=other, folder=tmp_path, code=1).stderr and len(list(other.iterdir())) == 1
    render(plan, "--force", output=other, folder=tmp_path)


@pytest.mark.parametrize("options,named", [
    (["--name", 'a"b'], "name"), (["--name", "a\nb"], "name"), (["--name", "ü"], "name"), (["--name", "x" * 300], "name"),
    (["--namespace", "A"], "namespace"), (["--host", "a b"], "host"), (["--image", "a\nb"], "image"), (["--description", "\x1b[31m"], "description"),
    (["--kind", "pod"], "kind"), (["--autoscaler", "both"], "autoscaler"), (["--expose", "ingress"], "host"), (["--option", "2"], "option"),
    (["--region", "mars"], "region"), (["--min-replicas", "9", "--max-replicas", "3"], "max_replicas"), (["--spot-percent", "101"], "spot_percent"),
    (["--rollout", "canary"], "new_image"), (["--prometheus-url", "javascript:x"], "prometheus_url"), (["--simulate", "--runtime", "vllm"], "simulate"),
    (["--kind", "llmisvc"], "runtime"), (["--load-gb-per-s", "0.001"], "load_gb_per_s"), (["--load-gb-per-s", "nan"], "load_gb_per_s"),
])
def test_bad_options_end_with_two_and_name_their_field(options, named, tmp_path):
    plan = deploy_plans.plan(weights_gib=100 if "0.001" in options else 10)
    error = render(plan, *options, output=tmp_path / "out", folder=tmp_path, code=2).stderr
    assert named in error.replace("-", "_") and not (tmp_path / "out").exists()


def long_nested():
    return b'{"schema": "sextant.plan/1", "options": ' + b"[" * 100000


@pytest.mark.parametrize("change,named", [
    (lambda plan: plan.update(schema="sextant.plan/9"), "schema"), (lambda plan: plan.update(options=[]), "options"),
    (lambda plan: plan["options"][0].update(model_id="a\x00b"), "model_id"), (lambda plan: plan["options"][0].update(model_id="--help"), "model_id"),
    (lambda plan: plan["options"][0].update(model_id="m" * 301), "model_id"), (lambda plan: plan["options"][0].update(tensor_parallel=0.5), "tensor_parallel"),
    (lambda plan: plan["options"][0].update(tensor_parallel=3, pipeline_parallel=3, sites=[{"region": "x", "replicas_needed": 1, "gpus_per_instance": 2}]), "tensor_parallel"),
    (lambda plan: plan["options"][0].update(replicas=10**30), "replicas"), (lambda plan: plan["options"][0].update(gpu=7), "gpu"),
    (lambda plan: plan["options"][0].update(targets=[{"target": "target_ttft_p90_ms", "limit_ms": "fast"}]), "limit_ms"),
    (lambda plan: plan.update(parts=[{"plan": copy.deepcopy(plan)}] * 2), "part"),
])
def test_bad_plans_end_with_two_and_name_their_field(change, named, tmp_path):
    plan = deploy_plans.plan()
    change(plan)
    assert named in render(plan, output=tmp_path / "out", folder=tmp_path, code=2).stderr


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff{}", b"{", long_nested(), b'"' + b"x" * (17 << 20) + b'"'])
def test_what_is_no_plan_is_refused(content, tmp_path):
    (tmp_path / "plan.json").write_bytes(content)
    run = server_process.sextant("deploy", "render", "--plan", tmp_path / "plan.json", "--output", tmp_path / "out")
    assert run.returncode == 2 and "plan" in run.stderr


# --- seeded defects -----------------------------------------------------------------------------------------------------


def one(documents, kind, name=None):
    return next(d for d in documents if d.get("kind") == kind and (name is None or d["metadata"]["name"] == name))


def container(documents):
    return one(documents, "Deployment")["spec"]["template"]["spec"]["containers"][0]


def rules(documents):
    return one(documents, "PrometheusRule")["spec"]["groups"]


def replace_argument(documents, name, value):
    arguments = container(documents)["args"]
    arguments[:] = [f"--{name}={value}" if argument.startswith(f"--{name}=") else argument for argument in arguments]


def board(documents, change):
    holder = next(d for d in documents if d.get("kind") == "ConfigMap")
    (key, text), = holder["data"].items()
    changed = json.loads(text)
    holder["data"][key] = json.dumps(change(changed) or changed)


def second_scaler(documents):
    documents.append({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject",
                      "metadata": {"name": "second", "namespace": one(documents, "Deployment")["metadata"]["namespace"]},
                      "spec": {"scaleTargetRef": {"name": one(documents, "Deployment")["metadata"]["name"]}, "triggers": [
                          {"type": "prometheus", "metadata": {"serverAddress": "http://p", "query": "sum(up)", "threshold": "1"}}]}})


def trigger(documents):
    return one(documents, "ScaledObject")["spec"]["triggers"][0]["metadata"]


def expression(text):
    return lambda documents: rules(documents)[0]["rules"][0].update(expr=text)


DEFECTS = {
    "a metric nobody exports": ("ingress", "unknown-metric", expression("sum(vllm_num_requests_waiting)")),
    "its name in a matcher": ("ingress", "unknown-metric", expression('sum({__name__="llm_requests"})')),
    "a histogram as it is": ("ingress", "unknown-metric", expression("sum(llm_ttft_seconds)")),
    "a label it has not": ("ingress", "unknown-label", expression('sum(llm_queue_depth{status="error"})')),
    "no rate in a quantile": ("ingress", "quantile", expression("histogram_quantile(0.99, llm_request_duration_seconds_bucket)")),
    "no le in a quantile": ("ingress", "quantile", expression("histogram_quantile(0.99, sum by (pod) (rate(llm_ttft_seconds_bucket[5m])))")),
    "a quantile of counts": ("ingress", "quantile", expression("histogram_quantile(0.99, sum by (le) (rate(llm_ttft_seconds_count[5m])))")),
    "the rate of a gauge": ("ingress", "rate-of-gauge", expression("rate(llm_queue_depth[5m])")),
    "no PromQL": ("ingress", "promql", expression("sum(up")),
    "a metric in a dashboard": ("ingress", "unknown-metric", lambda d: board(d, lambda b: b["panels"][0]["targets"][0].update(expr="vllm_x"))),
    "a dashboard in its envelope": ("ingress", "dashboard", lambda d: board(d, lambda b: {"dashboard": b})),
    "an old panel": ("ingress", "dashboard", lambda d: board(d, lambda b: b["panels"][0].update(type="graph"))),
    "two panels of one id": ("ingress", "dashboard", lambda d: board(d, lambda b: b["panels"][0].update(id=2))),
    "an HPA on an InferenceService": ("kserve", "scale-target", lambda d: one(d, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"].update(
        apiVersion="serving.kserve.io/v1beta1", kind="InferenceService", name="qwen3-8b")),
    "an HPA on nothing": ("ingress", "scale-target", lambda d: one(d, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"].update(name="x")),
    "KServe's own HPA as well": ("kserve", "two-scalers", lambda d: one(d, "InferenceService")["metadata"]["annotations"].update(
        {"serving.kserve.io/autoscalerClass": "hpa"})),
    "HPA and KEDA": ("ingress", "two-scalers", second_scaler),
    "a count and an HPA": ("ingress", "two-scalers", lambda d: one(d, "Deployment")["spec"].update(replicas=3)),
    "a count and an HPA on groups": ("two-nodes", "two-scalers", lambda d: one(d, "LeaderWorkerSet")["spec"].update(replicas=2)),
    "fewest above most": ("ingress", "replica-range", lambda d: one(d, "HorizontalPodAutoscaler")["spec"].update(minReplicas=30)),
    "a metric without a rule": ("ingress", "custom-metric", lambda d: one(d, "HorizontalPodAutoscaler")["spec"]["metrics"][0]["pods"]["metric"].update(name="x")),
    "a key of KEDA's past": ("canary-keda", "keda-trigger", lambda d: trigger(d).update(metricName="x")),
    "a number for KEDA": ("canary-keda", "keda-trigger", lambda d: trigger(d).update(threshold=50)),
    "a wrong target port": ("ingress", "port", lambda d: one(d, "Service")["spec"]["ports"][0].update(targetPort=8080)),
    "a probe of another port": ("ingress", "port", lambda d: container(d)["readinessProbe"]["httpGet"].update(port=8080)),
    "a server on another port": ("ingress", "port", lambda d: replace_argument(d, "port", 9000)),
    "a route to another port": ("ingress", "port", lambda d: one(d, "Ingress")["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"].update(port={"number": 80})),
    "a scrape of another port": ("ingress", "port", lambda d: one(d, "ServiceMonitor")["spec"]["endpoints"][0].update(port="metrics")),
    "a Service of nobody": ("ingress", "selector", lambda d: one(d, "Service")["spec"]["selector"].update(app="x")),
    "a monitor of nobody": ("ingress", "selector", lambda d: one(d, "ServiceMonitor")["spec"]["selector"]["matchLabels"].update(app="x")),
    "a budget of nobody": ("ingress", "selector", lambda d: one(d, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"].update(app="x")),
    "a template of others": ("ingress", "selector", lambda d: one(d, "Deployment")["spec"]["selector"]["matchLabels"].update(app="x")),
    "a route to no Service": ("canary-keda", "reference", lambda d: one(d, "HTTPRoute")["spec"]["rules"][0]["backendRefs"][1].update(name="x")),
    "a route without a Gateway": ("canary-keda", "reference", lambda d: one(d, "HTTPRoute")["spec"]["parentRefs"][0].update(name="x")),
    "a volume that is not there": ("ingress", "reference", lambda d: container(d)["volumeMounts"][0].update(name="x")),
    "an account that is not there": ("ingress", "reference", lambda d: one(d, "Deployment")["spec"]["template"]["spec"].update(serviceAccountName="x")),
    "fewer GPUs than ranks": ("canary-keda", "gpus", lambda d: replace_argument(d, "tensor-parallel-size", 8)),
    "more GPUs asked than had": ("canary-keda", "gpus", lambda d: container(d)["resources"]["requests"].update({"nvidia.com/gpu": "8"})),
    "a group that is too small": ("two-nodes", "gpus", lambda d: one(d, "LeaderWorkerSet")["spec"]["leaderWorkerTemplate"].update(size=1)),
    "no shared memory": ("canary-keda", "shared-memory", lambda d: container(d)["volumeMounts"].pop(1)),
    "an impatient probe": ("canary-keda", "probe-time", lambda d: container(d)["startupProbe"].update(failureThreshold=3)),
    "a liveness probe alone": ("canary-keda", "probe-time", lambda d: container(d).pop("startupProbe")),
    "a short grace": ("ingress", "grace-period", lambda d: one(d, "Deployment")["spec"]["template"]["spec"].update(terminationGracePeriodSeconds=30)),
    "a quote in a name": ("ingress", "bad-name", lambda d: one(d, "PodDisruptionBudget")["metadata"].update(name='a"b')),
    "a newline in a label": ("ingress", "bad-name", lambda d: one(d, "Service")["metadata"]["labels"].update(x="a\nb")),
    "an umlaut in a namespace": ("ingress", "bad-name", lambda d: one(d, "Role")["metadata"].update(namespace="ü")),
    "a Service in the place of LeaderWorkerSet's": ("two-nodes", "headless-name", lambda d: one(d, "Service")["metadata"].update(name="deepseek-v3")),
    "a group of vLLM's that is too small": ("vllm-two-nodes", "gpus", lambda d: one(d, "LeaderWorkerSet")["spec"]["leaderWorkerTemplate"].update(size=3)),
    "an object twice": ("ingress", "twice", lambda d: d.append(copy.deepcopy(one(d, "Role")))),
}


def validated(documents, tmp_path, adapter):
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(documents, allow_unicode=True))
    if adapter.exists():
        (tmp_path / adapter.name).write_text(adapter.read_text())
    run = server_process.sextant("deploy", "validate", tmp_path, "--json")
    report = json.loads(run.stdout)
    assert run.returncode == (1 if report["findings"] else 0)
    return {finding["rule"] for finding in report["findings"]}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_found(bundles, name, tmp_path):
    case, rule, change = DEFECTS[name]
    documents = [document for _, document in manifests_of(bundles[case]) if document["kind"] != "Kustomization"]
    adapter = bundles[case] / "monitoring" / "prometheus-adapter-values.yaml"
    assert validated(documents, tmp_path, adapter) == set()
    change(documents)
    assert rule in validated(documents, tmp_path, adapter)


def test_each_rule_of_the_validator_has_a_defect_that_proves_it():
    known = {line.split()[0] for line in server_process.sextant("deploy", "validate", "--rules").stdout.splitlines()}
    assert known == {rule for _, rule, _ in DEFECTS.values()} | {"not-readable"}


@pytest.mark.parametrize("content", ["a: yes\n", "a: &x 1\n", "[", "- 1\n", "a: 1\na: 2\n", "\x00", "a: !!int 3\n"])
def test_doubtful_files_are_named(content, tmp_path):
    (tmp_path / "x.yaml").write_text(content)
    report = json.loads(server_process.sextant("deploy", "validate", tmp_path, "--json").stdout)
    assert [finding["rule"] for finding in report["findings"]] == ["not-readable"]


def test_what_cannot_be_validated_ends_with_two(tmp_path):
    for arguments in ([], [tmp_path / "nothing"], [tmp_path]):
        assert server_process.sextant("deploy", "validate", *arguments).returncode == 2


# --- the other faces ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("advisor")
    return {"SEXTANT_KB": str(folder / "kb.sqlite"), "SEXTANT_CACHE": str(folder / "cache"), "SEXTANT_API_KEY": ""}


def test_a_plan_made_here_is_emitted_and_valid(home, tmp_path):
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps({"task_type": "chatbot", "users": 3000}))
    run = server_process.sextant("advise", "plan", spec, "--as-of", "2026-02-01", "--json", "--emit", tmp_path / "bundle", env=home, timeout=300)
    assert run.returncode == 0, run.stderr
    plan = json.loads(run.stdout)
    rendered = json.loads(render(plan, "--json", folder=tmp_path).stdout)["files"]
    assert {name: (tmp_path / "bundle" / name).read_text() for name in rendered} == rendered
    checked = server_process.sextant("deploy", "validate", tmp_path / "bundle")
    assert checked.returncode == 0, checked.stdout
    for _, document in manifests_of(tmp_path / "bundle"):
        if document["apiVersion"] in CORE:
            kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_manifests_over_http(home, tmp_path):
    with server_process.Server(None, verb="advisor", env=home, ready_timeout_s=300) as server:
        def ask(body):
            return server.post("/advisor/v1/manifests", body)

        plan, _ = deploy_plans.MATRIX["hostile"]
        options = {"name": "hostile", "autoscaler": "keda", "max_replicas": 9}
        answer = ask({"plan": plan, "options": options})
        assert answer.status == 200
        flags = ["--name", "hostile", "--autoscaler", "keda", "--max-replicas", "9"]
        assert answer.json["files"] == json.loads(render(plan, *flags, "--json", folder=tmp_path).stdout)["files"]
        tar = ask({"plan": deploy_plans.plan(), "format": "tar"})
        assert tar.status == 200 and tar.headers["content-type"] == "application/x-tar" and "bundle/README.md" in tar.body
        made = server.post("/advisor/v1/recommendations", {"spec": {"task_type": "chatbot", "users": 3000}, "as_of": "2026-02-01"}, timeout=300)
        by_id = ask({"plan_id": made.json["plan_id"]})
        assert by_id.status == 200 and by_id.json["files"] == ask({"plan": made.json}).json["files"]
        for body, status, param in (
                ({}, 400, "plan"), ({"plan": plan, "plan_id": "x"}, 400, "plan"), ({"plan_id": "never"}, 404, "plan_id"), ({"plan_id": 3}, 400, "plan_id"),
                ({"plan": plan, "optoins": {}}, 400, "optoins"), ({"plan": plan, "options": []}, 400, "options"), ({"plan": plan, "format": "zip"}, 400, "format"),
                ({"plan": plan, "options": {"kind": "pod"}}, 422, "kind"), ({"plan": plan, "options": {"knid": "lws"}}, 400, None),
                ({"plan": {}}, 422, "schema"), ({"plan": {"schema": "sextant.plan/1"}}, 422, "options")):
            refused = ask(body)
            assert refused.status == status and (param is None or refused.error["param"] == param), (body, refused.body)
        for text in (b"", b"[]", b"\xff", b"[" * 100000):
            assert server.request("POST", "/advisor/v1/manifests", text).status == 400
        document = server.get("/advisor/v1/openapi.json").json
        described = document["components"]["schemas"]["ManifestOptions"]["properties"]
        flags = server_process.sextant("deploy", "render", "--help").stdout
        assert len(described) > 35 and all(f"--{key.replace('_', '-')}" in flags for key in described)
    # Another process on the same knowledge base knows the plan.
    with server_process.Server(None, verb="advisor", env=home, ready_timeout_s=300) as server:
        assert server.post("/advisor/v1/manifests", {"plan_id": made.json["plan_id"]}).json["files"] == by_id.json["files"]
