"""The rules of the house that no compiler checks. One rule per call: python3 check_house.py RULE [--root FOLDER].

Prints each violation as "file: what is wrong" and exits 1 when there is one. Standard library only.
"""

import argparse
import ast
import glob
import itertools
import os
import pathlib
import re
import shutil
import subprocess
import sys

CPP = (".h", ".cpp", ".cu", ".cuh")
SOURCES = CPP + (".py", ".sh", ".js", ".cmake")


class Tree:
    """The files of a checkout: what git tracks or would track, or all but build outputs where there is no git."""

    def __init__(self, root):
        self.root = pathlib.Path(root)
        self.files = self._from_git()
        if self.files is None:
            skipped = {"build", ".git", ".venv", ".cache", "__pycache__"}
            self.files = sorted(
                str(path.relative_to(self.root))
                for path in self.root.rglob("*")
                if path.is_file() and not skipped & set(path.relative_to(self.root).parts)
            )
        self._texts = {}

    def _from_git(self):
        if not (self.root / ".git").exists():
            return None
        process = subprocess.run(
            ["git", "-c", f"safe.directory={self.root}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=self.root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
        if process.returncode != 0:
            return None
        names = process.stdout.decode().split("\0")
        return sorted({name for name in names if name and (self.root / name).is_file()})

    def text(self, name):
        """None for a file that is not text."""
        if name not in self._texts:
            data = (self.root / name).read_bytes()
            try:
                self._texts[name] = None if b"\0" in data else data.decode()
            except UnicodeDecodeError:
                self._texts[name] = None
        return self._texts[name]

    def ending(self, *suffixes):
        return [name for name in self.files if name.endswith(suffixes)]


# --- includes: ARCHITECTURE's table "who may include whom" -----------------------------------------------------------

# The first pattern that matches a path names its part.
PARTS = [
    ("base", r"engine/base/"),
    ("config", r"engine/config\.(h|cpp)$"),
    ("facts", r"engine/model/(model_config|memory_model|fp8_checkpoint)[a-z_]*\.(h|cpp)$"),
    ("format", r"engine/format/"),
    ("text", r"engine/text/"),
    ("core", r"engine/core/"),
    ("group", r"engine/group/"),
    ("sim", r"engine/sim/"),
    ("device", r"engine/device/"),
    ("model", r"engine/model/"),
    ("quantize", r"engine/quantize/"),
    ("exec", r"engine/exec/"),
    ("engine", r"engine/(engine|sim_engine|step)[a-z_]*\.(h|cpp)$"),
    ("kernels", r"kernels/"),
    ("main", r"server/main\.cpp$"),
    ("http", r"server/http/"),
    ("openai", r"server/openai/"),
    ("gateway", r"server/gateway/"),
    ("otlp", r"server/otlp/"),
    ("redis", r"server/redis/"),
    ("fleet", r"server/fleet/"),
    ("cli", r"server/cli/"),
    ("server", r"server/"),
    ("bench/kernels", r"bench/kernels/"),
    ("bench/gpu", r"bench/gpu/"),
    ("bench/core", r"bench/core(/|_bench\.cpp$)"),
    ("bench/engine", r"bench/engine/"),
    ("bench/record", r"bench/record/"),
    ("bench", r"bench/"),
    ("database", r"database/"),
    ("advisor", r"advisor/"),
    ("deploy", r"deploy/"),
    ("tests", r"tests/"),
]

# What server/ may see of the engine (and nothing else of it).
ENGINE_FACE = ["engine/engine.h", "engine/core/request.h", "engine/core/sampling_params.h"]
# What model/ and exec/ may see of core: data, not decisions.
CORE_DECISIONS = r"engine/core/(scheduler|block_pool|prefix_cache|kv_cache_manager)\.h$"

# A part always may include itself. Names of parts, or single headers.
MAY_INCLUDE = {
    "base": [],
    "kernels": [],
    "config": ["base"],
    "format": ["base"],
    "facts": ["base", "config", "format"],
    "text": ["format", "base"],
    "core": ["config", "base"],
    "group": ["core", "base"],
    # The scheduler over a device in time only: pure as core is, and without the engine, so that the advisor can run it.
    "sim": ["core", "facts", "config", "base"],
    "device": ["kernels", "config", "base"],
    "model": ["device", "format", "core", "facts", "config", "base", "exec"],
    # philox.h: the random stream is one definition for the host's sampler and the device's.
    "exec": ["device", "group", "format", "core", "facts", "config", "base", "model", "kernels/philox.h"],
    "quantize": ["kernels", "format", "facts", "config", "base"],
    "engine": ["model", "exec", "group", "sim", "device", "format", "core", "facts", "config", "base"],
    "http": ["base"],
    "openai": ENGINE_FACE + ["config", "text", "format", "base", "http", "server", "server/gateway/identity.h",
               "server/gateway/token_budget.h"],
    "server": ENGINE_FACE + ["config", "text", "format", "base", "http"],
    "gateway": ["base", "database", "http", "server", "redis"],
    "redis": ["base"],
    "otlp": ["base", "http", "server/gateway/identity.h"],
    "fleet": ["base", "format", "http"],
    "cli": ENGINE_FACE + ["engine/sim_engine.h", "sim", "facts", "config", "text", "format", "base", "http", "openai", "gateway", "otlp", "redis", "fleet", "server",
                           "bench", "bench/record", "bench/engine", "bench/kernels/kernel_run.h", "advisor", "deploy"],
    "bench/record": ["base"],
    # nvml.h and its reading: a client beside its server asks the GPU itself; they know nothing else of the engine.
    "bench": ["base", "text", "bench/record", "engine/device/nvml.h", "engine/device/device_reading.h"],
    "bench/kernels": ["kernels", "device", "core", "config", "base"],
    "bench/gpu": ["kernels"],
    "bench/core": ["core", "config", "base"],
    "bench/engine": ["engine", "core", "facts", "format", "config", "base", "bench", "bench/record"],
    "database": ["base"],
    "advisor": ["database", "facts", "base", "sim", "config", "bench/record"],
    "deploy": ["advisor", "base"],
}

# Headers from outside that a part must not know.
FORBIDDEN_OUTSIDE = [
    (r"engine/core/", r"(thread|mutex|condition_variable|shared_mutex|future|chrono|ctime)$|nlohmann/|boost/|curl/",
     "core is pure decisions: no threads, clock, JSON or HTTP"),
    (r"kernels/", r"nlohmann/|boost/(?!context/)|curl/|spdlog/", "kernels know raw pointers, sizes and a stream"),
    (r"engine/(?!device/(cuda|nccl)_)|server/|bench/(?!gpu/)|advisor/|deploy/",
     r"(cuda|cuda_runtime|cuda_fp16|cuda_bf16|cublas|cublasLt|cublas_v2|nccl)[a-z_0-9]*\.h$",
     "CUDA and NCCL headers belong to kernels/cuda, engine/device/{cuda,nccl}_* and bench/gpu"),
    (r"engine/", r"boost/|spdlog/|CLI/|prometheus/", "the engine knows neither HTTP nor flags"),
    (r"engine/(?!format/)", r"curl/", "only engine/format/hub downloads"),
    (r"server/(?!main\.cpp|cli/)", r"CLI/|spdlog/", "flags and the log's form belong to server/cli"),
]


def part_of(path):
    for part, pattern in PARTS:
        if re.match(pattern, path):
            return part
    return None


def includes_of(text):
    """(line number, name, whether in quotes)"""
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
        if match:
            yield number, match.group(2), match.group(1) == '"'


def check_includes(tree):
    for name in tree.ending(*CPP):
        part = part_of(name)
        if part is None:
            yield f"{name}: stands in no room of ARCHITECTURE's table"
            continue
        text = tree.text(name) or ""
        for number, header, quoted in includes_of(text):
            where = f"{name}:{number}"
            if not quoted:
                for paths, headers, why in FORBIDDEN_OUTSIDE:
                    if re.match(paths, name) and re.match(headers, header):
                        yield f"{where}: includes <{header}>: {why}"
                continue
            if not (tree.root / header).is_file():
                yield f'{where}: "{header}" does not exist: includes are relative to the root'
                continue
            if part in ("tests", "main"):
                continue
            target = part_of(header)
            if target == part and part != "server":
                continue
            if target == "server" and part == "server":
                continue
            allowed = MAY_INCLUDE[part]
            if header not in allowed and target not in allowed:
                yield f'{where}: {part} must not include "{header}" ({target})'
            elif part in ("model", "exec") and re.match(CORE_DECISIONS, header):
                yield f'{where}: {part} may see core\'s data types, not "{header}"'
        if re.match(r"engine/(core|model)/", name) and re.search(r"^\s*#\s*if", text, re.M):
            yield f"{name}: holds an #if: scheduler and models know no build variants"


# --- sizes, names, heads ----------------------------------------------------------------------------------------------


def head_comment(text):
    return "\n".join(text.splitlines()[:20])


def check_sizes(tree):
    for name in tree.ending(*SOURCES):
        text = tree.text(name)
        if text is None:
            continue
        num_lines = text.count("\n")
        if num_lines > 800:
            yield f"{name}: {num_lines} lines; 800 is the most: split it by responsibility"
        elif num_lines > 500 and not re.search(r"[Ll]ong because|[Oo]ne file because|[Aa]bove 500", head_comment(text)):
            yield f'{name}: {num_lines} lines; above 500 the head comment says why ("Long because ...")'
        if name.endswith(".h") and not text.startswith("//"):
            yield f"{name}: has no head comment (purpose, thread, what it must not know)"
        if name.endswith(".h") and "#pragma once" not in text:
            yield f"{name}: has no #pragma once"


def check_names(tree):
    banned = {"util", "utils", "misc", "helper", "helpers", "fast", "optimized", "new", "v2"}
    for name in tree.files:
        words = set(re.split(r"[/_.\-]", name.lower()))
        if banned & words and not name.startswith("tests/data/"):
            yield f"{name}: '{sorted(banned & words)[0]}' says nothing about what the file is for"
        # kernels/simt/include shadows headers of others under their names.
        if name.endswith(CPP) and not re.fullmatch(r"[a-z0-9_./]+|kernels/simt/include/\w+\.h", name):
            yield f"{name}: files are named in snake_case"


# --- Beast: slow to compile, so instantiated in few files -------------------------------------------------------------

MAX_BEAST_SOURCES = 6


def check_beast(tree):
    known = {}

    def reaches_beast(name, seen):
        if name in known:
            return known[name]
        text = tree.text(name) if (tree.root / name).is_file() else None
        found = False
        for _, header, quoted in includes_of(text or ""):
            if header.startswith("boost/beast") or (quoted and header not in seen and
                                                    reaches_beast(header, seen | {header})):
                found = True
                break
        known[name] = found
        return found

    sources = [name for name in tree.ending(".cpp") if not name.startswith("tests/") and reaches_beast(name, {name})]
    if len(sources) > MAX_BEAST_SOURCES:
        yield f"{', '.join(sources)}: {len(sources)} sources instantiate Beast; {MAX_BEAST_SOURCES} is the most"


# --- paths of one machine, hosts of one network -----------------------------------------------------------------------

MACHINE_PATHS = "|".join(["/wo" + "rk/", "/ro" + "ot/", "/ho" + r"me/(?!user\b)[a-z]", "/Us" + "ers/[a-z]"])
REGISTRY_HOSTS = "|".join(["pkg" + r"\.dev", "arti" + "factory", "jf" + r"rog\.", "--(extra-)?index" + "-url",
                           "[a-z0-9]" + r"\.internal\b", r"\b(10|192\.168)(\.[0-9]+){2,3}" + ":[0-9]+"])


def check_paths(tree):
    for name in tree.files:
        text = tree.text(name)
        if text is None or name == "LICENSE":
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if len(line) > 2000:  # data
                continue
            if re.search(rf"(?<![\w.])({MACHINE_PATHS})", line):
                yield f"{name}:{number}: names a path of one machine: {line.strip()[:100]}"
            if re.search(REGISTRY_HOSTS, line):
                yield f"{name}:{number}: names a package registry's host: {line.strip()[:100]}"


# --- READMEs -----------------------------------------------------------------------------------------------------------


def expand_braces(text):
    match = re.search(r"\{([^{}]*)\}", text)
    if not match:
        return [text]
    return list(itertools.chain.from_iterable(
        expand_braces(text[:match.start()] + choice + text[match.end():]) for choice in match.group(1).split(",")))


def named_paths(text):
    """Words in backticks that look like files or folders of ours."""
    without_blocks = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    for quoted in re.findall(r"`([^`\n]+)`", without_blocks):
        word = quoted.split()[0] if quoted.strip() else ""
        if re.fullmatch(r"(\.?[A-Za-z0-9_*][A-Za-z0-9_.{},*\-]*/?)+", word):
            yield word


def check_readmes(tree):
    folders = sorted({name.split("/")[0] for name in tree.files if "/" in name and not name.startswith(".")} - {"cmake"})
    for folder in folders:
        if not (tree.root / folder / "README.md").is_file():
            yield f"{folder}/README.md: is missing"
    if not (tree.root / "README.md").is_file():
        yield "README.md: is missing"
    for readme in tree.ending("README.md"):
        base = (tree.root / readme).parent
        for word in named_paths(tree.text(readme) or ""):
            looks_like_file = re.search(r"\.(h|cpp|cu|cuh|py|sh|md|cmake|txt|supp)$", word) is not None
            first = re.split(r"[/{*]", word)[0]
            begins_in_tree = "/" in word and first and ((tree.root / first).is_dir() or (base / first).is_dir())
            if not looks_like_file and not begins_in_tree:
                continue
            if word.startswith("build/"):
                continue
            for candidate in expand_braces(word.rstrip("/")):
                # A stem names its header and source: `engine/config`.
                spellings = [candidate] if looks_like_file else [candidate, candidate + ".*"]
                starts = [glob.escape(str(start)) for start in (base, tree.root)]
                if not any(glob.glob(os.path.join(start, name)) for start in starts for name in spellings):
                    yield f"{readme}: names `{candidate}`, which does not exist"


# --- tests and scripts -------------------------------------------------------------------------------------------------


def check_tests(tree):
    cmake = tree.text("tests/CMakeLists.txt") if "tests/CMakeLists.txt" in tree.files else ""
    folders = {match.group(1) for match in re.finditer(r"^\s*sextant_test\(\s*\w+\s+([\w/]+)", cmake, re.M)}
    for name in tree.ending("_test.cpp"):
        if not name.startswith("tests/"):
            yield f"{name}: tests stand under tests/"
            continue
        folder = os.path.dirname(name)[len("tests/"):]
        if folder not in folders:
            yield f"{name}: is in no test program of tests/CMakeLists.txt"
        elif not (tree.root / folder).is_dir():
            yield f"{name}: mirrors {folder}/, which does not exist"
        text = tree.text(name) or ""
        if not re.search(r"^\s*(TYPED_)?TEST(_F|_P)?\(", text, re.M):
            yield f"{name}: holds no test"
        if "DISABLED_" in text:
            yield f"{name}: holds a disabled test: mend or delete it"
    for name in tree.files:
        if name.startswith("tests/") and name.endswith(".cpp") and not name.endswith(("_test.cpp", "_fuzz.cpp")):
            if not name.startswith("tests/support/"):
                yield f"{name}: is neither a test, a fuzzer nor support: nothing builds it"
        if re.fullmatch(r"tests/.*_fuzz\.cpp", name) and not re.fullmatch(r"tests/fuzz/[a-z0-9_]+\.cpp", name):
            yield f"{name}: fuzzers stand in tests/fuzz/"
        if name.startswith("tests/e2e/") and name.endswith(".py"):
            if re.search(r"^def test_", tree.text(name) or "", re.M) and not os.path.basename(name).startswith("test_"):
                yield f"{name}: pytest collects test_*.py only"


def check_scripts(tree):
    for name in tree.files:
        text = tree.text(name)
        if text is None:
            continue
        if name.endswith(".py"):
            try:
                ast.parse(text)
            except SyntaxError as error:
                yield f"{name}:{error.lineno}: {error.msg}"
        if not name.endswith(".sh") and not re.match(r"#!.*\b(ba)?sh\b", text):
            continue
        if not os.access(tree.root / name, os.X_OK):
            yield f"{name}: is not executable"
        process = subprocess.run(["bash", "-n", str(tree.root / name)], stderr=subprocess.PIPE, check=False)
        if process.returncode != 0:
            yield f"{name}: {process.stderr.decode().strip()}"
        if not re.search(r"^set -[a-z]*u", text, re.M):
            yield f"{name}: does not set -u"


def check_format(tree):
    """clang-format's opinion of every source; .clang-format says which."""
    names = [name for name in tree.files if name.endswith((".cpp", ".h", ".cu", ".cuh"))]
    if not shutil.which("clang-format"):
        yield "clang-format is not installed: deploy/install-deps.sh --test"
        return
    style = "file" if (tree.root / ".clang-format").exists() else "Google"
    for begin in range(0, len(names), 100):
        process = subprocess.run(["clang-format", f"--style={style}", "--dry-run"]
                                 + names[begin : begin + 100],
                                 cwd=tree.root, stderr=subprocess.PIPE, check=False)
        found = re.findall(r"^(\S+?):(\d+):\d+: (?:warning|error): (.*)", process.stderr.decode(errors="replace"), re.M)
        first = {}
        for name, line, message in found:
            first.setdefault(name, (line, message))
        for name, (line, message) in first.items():
            yield f"{name}:{line}: {message}; clang-format -i {name}"
        if process.returncode != 0 and not found:
            yield process.stderr.decode(errors="replace").strip()


RULES = {
    "includes": check_includes,
    "sizes": check_sizes,
    "names": check_names,
    "beast": check_beast,
    "paths": check_paths,
    "readmes": check_readmes,
    "tests": check_tests,
    "scripts": check_scripts,
    "format": check_format,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rule", choices=RULES)
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parents[2])
    arguments = parser.parse_args()
    tree = Tree(arguments.root)
    if not tree.files:
        print(f"{arguments.root}: no files")
        return 1
    violations = list(RULES[arguments.rule](tree))
    for violation in violations:
        print(violation)
    print(f"{arguments.rule}: {len(tree.files)} files, {len(violations)} violations")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
