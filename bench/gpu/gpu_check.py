"""The stages of bench/gpu_check.sh, and its archive. Standard library only; reads no network.

Each stage has a time limit and leaves what it knows so far in <out>: build.json, test.jsonl, measure.jsonl (one object per
line), so that a second call takes up what the first did not finish.
"""

import argparse
import datetime
import hashlib
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
STAGES = ("build", "test", "multi_gpu", "measure")
STAGE_LIMIT_S = 460  # under 8 minutes with what starting and ending take
ARCHIVE_LIMIT_BYTES = 64 << 20
TEST_PROGRAMS = ("test_kernels_cuda", "test_device")
TARGETS = ("kernels_bench", "kernel_launches", "kernel_occupancy", "engine_bench") + TEST_PROGRAMS
# What the archive holds of the repository, and of the system.
PACKED = ("CMakeLists.txt", "CMakePresets.json", "LICENSE", "cmake", "kernels", "engine", "bench", "tests/CMakeLists.txt",
          "tests/kernels", "tests/engine", "tests/support", "tests/data")
THIRD_PARTY = {"nlohmann": ("/usr/include/nlohmann", "/usr/local/include/nlohmann"),
               "googletest": ("/usr/src/googletest",)}
DONE, FAILED, UNFINISHED = 0, 1, 3


def read_lines(path):
    """The objects of a JSONL file; a line that was cut off by an end of time is no object."""
    records = []
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                records.append(record)
    return records


def append_line(path, record):
    with path.open("a") as file:
        file.write("\n" + json.dumps(record))  # the newline first: a line that was cut off stays alone


class Clock:
    def __init__(self, limit_s):
        self.end = time.monotonic() + limit_s

    def left_s(self):
        return self.end - time.monotonic()


def run_within(clock, command, log, environment=None):
    """(exit status or None when time ran out)"""
    with log.open("a") as file:
        try:
            return subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, timeout=max(1, clock.left_s()),
                                  env=environment, check=False).returncode
        except subprocess.TimeoutExpired:
            return None


def tail(log, lines=15):
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


# --- build ------------------------------------------------------------------------------------------------------------


def device_architectures():
    """Of this machine's GPUs, as CMake writes them; empty without a driver."""
    if shutil.which("nvidia-smi") is None:
        return []
    process = subprocess.run(["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"], stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL, text=True, check=False)
    return sorted({line.strip().replace(".", "") for line in process.stdout.split("\n") if re.match(r"\d+\.\d", line)})


def build(folder, out, jobs, defines=(), wanted=TARGETS):
    clock, log, begin = Clock(STAGE_LIMIT_S), out / "build.log", time.monotonic()
    log.write_text("")
    architectures = device_architectures()
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    record = {"stage": "build", "architectures": architectures or ["80", "90"], "nvcc": nvcc,
              "defines": list(defines)}
    commands = [["cmake", "-S", str(ROOT), "-B", str(folder), "-DCMAKE_BUILD_TYPE=Release", "-DSEXTANT_LEAN=ON",
                 "-DSEXTANT_CUDA=ON", "-DCMAKE_CXX_COMPILER=g++",
                 f"-DCMAKE_CUDA_ARCHITECTURES={';'.join(record['architectures'])}", *(f"-D{define}" for define in defines)]]
    commands += [["cmake", "--build", str(folder), "--parallel", str(jobs), "--target", target] for target in wanted]
    status, targets = DONE, {}
    for command in commands:
        name = command[-1] if "--build" in command else "configure"
        code = run_within(clock, command, log, dict(os.environ, CUDACXX=nvcc))
        targets[name] = "out of time" if code is None else "ok" if code == 0 else f"failed ({code})"
        record |= {"targets": targets, "seconds": round(time.monotonic() - begin, 1)}
        (out / "build.json").write_text(json.dumps(record, indent=1))
        if code is None:
            status = UNFINISHED
            break
        if code != 0:
            status = FAILED
            print(tail(log))
            if name == "configure":
                break
    for name, result in targets.items():
        print(f"  {name}: {result}")
    return status


# --- test -------------------------------------------------------------------------------------------------------------


def suites_of(program):
    process = subprocess.run([str(program), "--gtest_list_tests"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                             text=True, check=True)
    return [line.split("#")[0].strip() for line in process.stdout.splitlines() if line[:1].strip() and line.split("#")[0]
            .strip().endswith(".")]


def digest_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def test(folder, out, _jobs):
    clock, path, log = Clock(STAGE_LIMIT_S), out / "test.jsonl", out / "test.log"
    failed = 0
    for name in TEST_PROGRAMS:
        program = folder / "tests" / name
        if not program.exists():
            print(f"  {name}: not built")
            failed += 1
            continue
        digest = digest_of(program)
        passed = {r["suite"] for r in read_lines(path) if r.get("program") == digest and r.get("status") == "passed"}
        for suite in suites_of(program):
            key = f"{name}/{suite}"
            if key in passed:
                continue
            if clock.left_s() < 5:
                return UNFINISHED
            begin = time.monotonic()
            with log.open("a") as mark:
                mark.write(f"\n===== {key}\n")
            code = run_within(clock, [str(program), f"--gtest_filter={suite}*"], log)
            if code is None:
                append_line(path, {"suite": key, "program": digest, "status": "out of time"})
                return UNFINISHED
            append_line(path, {"suite": key, "program": digest, "status": "passed" if code == 0 else "failed",
                               "seconds": round(time.monotonic() - begin, 2)})
            if code != 0:
                failed += 1
                print(f"  {key}: failed ({code}); see {log}")
    print(f"  {failed} suites failed")
    return FAILED if failed else DONE


# --- multi_gpu --------------------------------------------------------------------------------------------------------

# What needs several devices; the test stage has run it too, where it skips itself on one.
MULTI_GPU_TESTS = (("test_device", "NcclCommunicator.*"),)


def num_gpus():
    process = subprocess.run(["nvidia-smi", "--list-gpus"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                             check=False)
    return sum(line.startswith("GPU ") for line in process.stdout.splitlines())


def multi_gpu(folder, out, _jobs, count=num_gpus):
    """Collectives between this machine's GPUs. Skipped, and it says so, where there is one."""
    clock, path, log = Clock(STAGE_LIMIT_S), out / "multi_gpu.jsonl", out / "multi_gpu.log"
    gpus = count()
    if gpus < 2:
        append_line(path, {"stage": "multi_gpu", "status": "skipped", "gpus": gpus})
        print(f"  SKIPPED: this machine shows {gpus} GPU; tensor parallelism over NCCL was NOT checked on devices")
        return DONE
    status = DONE
    for name, pattern in MULTI_GPU_TESTS:
        program = folder / "tests" / name
        if not program.exists():
            print(f"  {name}: not built")
            status = FAILED
            continue
        log.write_text("")
        code = run_within(clock, [str(program), f"--gtest_filter={pattern}"], log)
        if code is None:
            return UNFINISHED
        # A build without NCCL skips its tests, which here is no success.
        skipped = "[  SKIPPED ]" in log.read_text(errors="replace")
        passed = code == 0 and not skipped
        append_line(path, {"stage": "multi_gpu", "suite": f"{name}/{pattern}", "gpus": gpus,
                           "status": "passed" if passed else "skipped" if skipped else "failed"})
        print(f"  {name} {pattern} on {gpus} GPUs: {'passed' if passed else 'NOT passed; see ' + str(log)}")
        if not passed:
            print(tail(log))
            status = FAILED
    return status


# --- measure ----------------------------------------------------------------------------------------------------------


def measurement_table(records, devices):
    """Markdown lines of what kernels_bench wrote; refuses what no device has measured."""
    records = [record for record in records if "engine_case" not in record]
    about = next((record for record in records if "device" in record), None)
    if about is None or about["is_emulated"]:
        raise ValueError("these records come from no GPU")
    if len({record["device"] for record in records if "device" in record}) != 1:
        raise ValueError("these records come from several GPUs")
    roof = next((device for device in devices if device["name"] in about["device"]), None)
    yield f"# Kernels on {about['device']} at the shape of {about['model_shape']}"
    yield ""
    yield "Median of repetitions by CUDA events, caches written over before each; one launch, its start included."
    yield "Percent of roof: the larger of bytes / peak bandwidth and operations / peak rate (bench/gpu/device_roofs.json) over the time."
    yield ""
    yield "| op | call | us | GB/s | TFLOP/s | % of roof |"
    yield "|---|---|---|---|---|---|"
    latest = {record["case"]: record for record in records if "case" in record}
    for record in latest.values():
        if "error" in record:
            yield f"| {record['case']} | {record['error']} | | | | |"
            continue
        seconds = record["median_s"]
        percent = ""
        if roof is not None:
            bound = max(record["bytes"] / (roof["memory_tb_per_s"] * 1e12),
                        record["flops"] / (roof["bf16_tflop_per_s"] * 1e12))
            percent = f"{100 * bound / seconds:.1f}"
        yield (f"| {record['op']} | {record['shape']} | {seconds * 1e6:.2f} | {record['bytes'] / seconds / 1e9:.0f} | "
               f"{record['flops'] / seconds / 1e12:.2f} | {percent} |")


def engine_table(records, devices):
    """Markdown lines of what engine_bench wrote; refuses what no device has measured."""
    latest = {record["engine_case"]: record for record in records if "engine_case" in record}
    load = latest.get("load")
    if load is None:
        return
    if not load["device"].startswith("cuda ("):
        raise ValueError("these records come from no GPU")
    roof = next((device for device in devices if device["name"] in load["device"]), None)
    yield f"# The engine on {load['device']}: random weights of the shape {load['shape']}"
    yield ""
    yield (f"Process start to ready {load['ready_s']:.1f} s, with {load['weight_bytes'] / 2**30:.1f} GiB of weights made up on the host. "
           "Medians over steps. Percent of roof: the least time for the step's bytes or operations over its time.")
    yield ""
    yield "| case | step ms | tokens/s | % of roof |"
    yield "|---|---|---|---|"
    for name, record in latest.items():
        if "median_step_s" not in record or record["median_step_s"] <= 0:
            continue
        percent = ""
        if roof is not None:
            bound = max(record["bytes"] / (roof["memory_tb_per_s"] * 1e12),
                        record["flops"] / (roof["bf16_tflop_per_s"] * 1e12))
            percent = f"{100 * bound / record['median_step_s']:.1f}"
        yield f"| {name} | {record['median_step_s'] * 1e3:.3f} | {record['tokens_per_s']:.0f} | {percent} |"
    for name, record in latest.items():
        if name.startswith("load/"):
            yield ""
            yield (f"{name}: {record['output_tokens_per_s']:.0f} output tokens/s, the device at work for "
                   f"{100 * record['device_busy_share']:.1f}% of the time, {record['num_preemptions']} preemptions.")


def write_table(kind, device, lines):
    lines = list(lines)
    if not lines:
        return
    results = ROOT / "bench/results"
    results.mkdir(exist_ok=True)
    name = re.sub(r"[^A-Za-z0-9]+", "-", device).strip("-").lower()
    table = results / f"{kind}-{name}-{datetime.date.today().isoformat()}.md"
    table.write_text("\n".join(lines) + "\n")
    print(f"  {table}")


def measure(folder, out, _jobs):
    clock, path, log = Clock(STAGE_LIMIT_S), out / "measure.jsonl", out / "measure.log"
    commands = {"kernels_bench": [folder / "bench/gpu/kernels_bench", "--shape", "llama-8b", "--out", path],
                "engine_bench": [folder / "bench/engine/engine_bench", "--shape", "llama-8b", "--device", "cuda", "--out", path]}
    devices = json.loads((ROOT / "bench/gpu/device_roofs.json").read_text())["devices"]
    status = DONE
    for name, command in commands.items():
        if not command[0].exists():
            print(f"  {name} is not built")
            status = FAILED
            continue
        code = run_within(clock, [str(part) for part in command], log)
        if code is None:
            status = UNFINISHED
        elif code != 0:
            print(tail(log))
            status = FAILED
    records = read_lines(path)
    if not any("median_s" in record for record in records):
        print(tail(log) if log.exists() else "  nothing was measured")
        return status if status != DONE else FAILED
    device = next(record["device"] for record in records if "device" in record)
    write_table("kernels", device, measurement_table(records, devices))
    write_table("engine", device, engine_table(records, devices))
    return status


# --- archive ----------------------------------------------------------------------------------------------------------


def pack(path):
    names = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *PACKED], cwd=ROOT,
                           stdout=subprocess.PIPE, check=True).stdout.decode().split("\0")
    with tarfile.open(path, "w:gz") as archive:
        for name in sorted(set(filter(None, names))):
            if (ROOT / name).is_file():
                archive.add(ROOT / name, f"sextant/{name}")
        for name, places in THIRD_PARTY.items():
            place = next((p for p in (ROOT / "third_party" / name, *map(pathlib.Path, places)) if p.is_dir()), None)
            if place is None:
                print(f"{name} is not on this machine: {', '.join(places)}", file=sys.stderr)
                return FAILED
            archive.add(place, f"sextant/third_party/{name}")
        text = b"Made by bench/gpu_check.sh --pack. Unpack, then: bench/gpu_check.sh\n"
        member = tarfile.TarInfo("sextant/PACKED.txt")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
    size = path.stat().st_size
    print(f"{path}: {size / 2**20:.1f} MiB")
    if size > ARCHIVE_LIMIT_BYTES:
        print("more than 64 MiB", file=sys.stderr)
        return FAILED
    return DONE


def main():
    parser = argparse.ArgumentParser(prog="bench/gpu_check.sh", description="Builds, tests and measures on a GPU.")
    parser.add_argument("--stages", default=",".join(STAGES), help="some of build,test,multi_gpu,measure")
    parser.add_argument("--pack", type=pathlib.Path, metavar="FILE", help="write an archive and do nothing else")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/gpu-check/build")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build/gpu-check")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--define", action="append", default=[], metavar="NAME=VALUE", help="a CMake variable for stage build")
    parser.add_argument("--targets", default=",".join(TARGETS), help="what stage build builds")
    arguments = parser.parse_args()
    if arguments.pack:
        return pack(arguments.pack)
    stages = arguments.stages.split(",")
    if unknown := [stage for stage in stages if stage not in STAGES]:
        parser.error(f"no such stage: {', '.join(unknown)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for stage in stages:
        print(f"===== {stage}", flush=True)
        if stage != "build" and not device_architectures():
            print("  no GPU: nvidia-smi is missing or sees none. --stages build needs none.")
            return FAILED
        options = {"defines": arguments.define, "wanted": arguments.targets.split(",")} if stage == "build" else {}
        status = globals()[stage](arguments.build.resolve(), arguments.out.resolve(), arguments.jobs, **options)
        if status == UNFINISHED:
            print(f"  out of time; run bench/gpu_check.sh again to go on with {stage}")
        if status != DONE:
            return status
    return DONE


if __name__ == "__main__":
    sys.exit(main())
