"""What nvcc made of each kernel, read from a built library: registers, shared memory, spills, instructions, occupancy.

Needs cuobjdump (PyPI: nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm, or a toolkit that has them), c++filt, and the programs
kernel_launches and kernel_occupancy of the same build. No device. Standard library only.
"""

import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import sysconfig

# Of compute capability 9.0 on, cuobjdump counts the kilobyte that the driver keeps for itself in each block that has any.
DRIVER_SHARED_BYTES = 1024
# Opcodes that the gates ask for: name -> pattern over an instruction with its modifiers.
INSTRUCTIONS = {
    "local_store": r"STL(\.|$)",
    "local_load": r"LDL(\.|$)",
    "tensor_core": r"HMMA\.16816\.F32(\.|$)",
    "wide_global_load": r"(LDG(\.[A-Z0-9]+)*\.128|LDGSTS(\.[A-Z0-9]+)*\.128)(\.|$)",
    # Also through pointers that the kernel itself reads from memory, whose space the compiler cannot know.
    "wide_load": r"LDG?(\.[A-Z0-9]+)*\.128(\.|$)",
    "wide_store": r"STG?(\.[A-Z0-9]+)*\.128(\.|$)",
    "wide_global_store": r"STG(\.[A-Z0-9]+)*\.128(\.|$)",
}


class FactsError(Exception):
    """A tool is missing, failed, or said what this file does not understand."""


@dataclasses.dataclass
class KernelFacts:
    symbol: str
    name: str  # demangled and shortened: attention_prefill_kernel<bf16, 128, 128, 2>
    architecture: int
    registers: int
    stack_bytes: int
    local_bytes: int
    static_shared_bytes: int
    instructions: dict  # of INSTRUCTIONS: how many


def find_cuobjdump():
    """Of this Python's packages, else of the system; nvdisasm, which it calls, stands beside it."""
    folders = [pathlib.Path(sysconfig.get_paths()["purelib"]) / "nvidia"]
    found = sorted(str(path) for folder in folders if folder.is_dir() for path in folder.glob("*/bin/cuobjdump"))
    tool = found[-1] if found else shutil.which("cuobjdump") or shutil.which("cuobjdump", path="/usr/local/cuda/bin")
    if tool is None:
        raise FactsError("no cuobjdump: pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm "
                         "(tests/e2e/requirements.txt names them), or install the toolkit's")
    return tool


def run(command, text=None):
    environment = dict(os.environ, PATH=os.path.dirname(command[0]) + os.pathsep + os.environ.get("PATH", ""))
    process = subprocess.run(command, input=text, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                             env=environment, check=False)
    if process.returncode != 0:
        raise FactsError(f"{' '.join(map(str, command))}: {process.stderr.strip()[:500] or process.returncode}")
    return process.stdout


def short_name(demangled):
    """sextant::...::norm_kernel<__half>(Args) -> norm_kernel<fp16>."""
    name = demangled.removeprefix("void ")
    name = re.sub(r"sextant::kernels::cuda::|\(anonymous namespace\)::", "", name)
    name = re.sub(r"\(WeightFormat\)(\d)", lambda m: ("bf16", "fp16", "q8_0", "q4_0", "q4_1", "f8_tiles", "f8_rows", "f8_blocks")[int(m[1])], name)
    name = re.sub(r"\(Activation\)(\d)", lambda m: ("silu", "gelu_tanh", "gelu_erf")[int(m[1])], name)
    name = name.replace("__nv_bfloat16", "bf16").replace("__half", "fp16").replace("> >", ">>")
    return name[:name.rindex("(")] if "(" in name else name


def parse_resources(text):
    """{(architecture, symbol): {"REG": 32, ...}} out of cuobjdump -res-usage."""
    resources, architecture, symbol = {}, None, None
    for line in text.splitlines():
        if match := re.match(r"arch = sm_(\d+)", line):
            architecture = int(match[1])
        elif match := re.match(r"\s*Function (\S+):$", line):
            symbol = match[1]
        elif "REG:" in line and symbol is not None:
            if architecture is None:
                raise FactsError("cuobjdump -res-usage names no architecture")
            resources[architecture, symbol] = {key: int(value) for key, value in re.findall(r"([A-Z]+):(\d+)", line)}
            symbol = None
    return resources


def parse_instructions(text):
    """{(architecture, symbol): {name of INSTRUCTIONS: count}} out of cuobjdump -sass."""
    patterns = {name: re.compile(pattern) for name, pattern in INSTRUCTIONS.items()}
    counts, architecture, current = {}, None, None
    opcode_of = re.compile(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)")
    for line in text.splitlines():
        if match := re.match(r"\s*code for sm_(\d+)", line):
            architecture = int(match[1])
        elif match := re.match(r"\s*Function : (\S+)", line):
            current = counts.setdefault((architecture, match[1]), {name: 0 for name in INSTRUCTIONS} | {"all": 0})
        elif current is not None and (match := opcode_of.match(line)):
            current["all"] += 1
            for name, pattern in patterns.items():
                if pattern.match(match[1]):
                    current[name] += 1
    return counts


def facts_from(resource_text, sass_text, demangle):
    """Joins the two; each kernel must be in both."""
    resources, instructions = parse_resources(resource_text), parse_instructions(sass_text)
    if not resources:
        raise FactsError("no kernels in what cuobjdump printed")
    if missing := set(resources) ^ set(instructions):
        raise FactsError(f"only one of -res-usage and -sass knows {sorted(missing)[:3]}")
    if empty := [key for key, counts in instructions.items() if counts["all"] == 0]:
        raise FactsError(f"no instruction was read of {empty[:3]}")
    names = demangle(sorted({symbol for _, symbol in resources}))
    kernels = []
    for (architecture, symbol), used in sorted(resources.items()):
        shared = used["SHARED"]
        if architecture >= 90 and shared >= DRIVER_SHARED_BYTES:
            shared -= DRIVER_SHARED_BYTES
        kernels.append(KernelFacts(symbol, short_name(names[symbol]), architecture, used["REG"], used["STACK"],
                                   used["LOCAL"], shared, instructions[architecture, symbol]))
    return kernels


def demangle_with_filt(symbols):
    lines = run(["c++filt"], "\n".join(symbols) + "\n").splitlines()
    return dict(zip(symbols, lines, strict=True))


def read_facts(library):
    tool = find_cuobjdump()
    return facts_from(run([tool, "-res-usage", library]), run([tool, "-sass", library]), demangle_with_filt)


def read_launches(build):
    return json.loads(run([str(pathlib.Path(build) / "bench/gpu/kernel_launches")]))


def add_occupancy(build, rows):
    """rows: dicts with architecture, registers, static_shared_bytes, dynamic_shared_bytes, threads. Adds blocks_per_sm and limit."""
    keys = ("architecture", "registers", "static_shared_bytes", "dynamic_shared_bytes", "threads")
    text = "".join(" ".join(str(row[key]) for key in keys) + "\n" for row in rows)
    answers = run([str(pathlib.Path(build) / "bench/gpu/kernel_occupancy")], text).splitlines()
    for row, answer in zip(rows, answers, strict=True):
        blocks, row["limit"] = answer.split(" ", 1)
        row["blocks_per_sm"] = int(blocks)


def launched_kernels(kernels, launches):
    """One row per kernel, architecture and distinct launch: facts and launch in one dict."""
    of_symbol = {}
    for kernel in kernels:
        of_symbol.setdefault(kernel.symbol, []).append(kernel)
    rows = []
    for case in launches["cases"]:
        for launch_idx, launch in enumerate(case["launches"]):
            if launch["kernel"] not in of_symbol:
                raise FactsError(f"{case['op']} launches {launch['kernel']}, which the library does not hold")
            for kernel in of_symbol[launch["kernel"]]:
                rows.append({"kernel": kernel, "case": case, "architecture": kernel.architecture,
                             "registers": kernel.registers, "static_shared_bytes": kernel.static_shared_bytes,
                             "dynamic_shared_bytes": launch["dynamic_shared_bytes"], "threads": launch["threads"],
                             "grid": launch["grid"], "launch_idx": launch_idx})
    return rows


def library_of(build):
    path = pathlib.Path(build) / "kernels/libsextant_cuda_kernels.a"
    if not path.is_file():
        raise FactsError(f"{path} does not exist: build the targets sextant_cuda_kernels, kernel_launches, kernel_occupancy")
    return str(path)
