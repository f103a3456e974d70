"""Static gates over the compiled CUDA kernels: spills, tensor-core instructions, wide loads, registers, occupancy.

python3 tests/cuda_static/check_kernels.py --build build/cuda [--junit FILE]
Holds what nvcc made (bench/gpu/cubin_facts.py reads it) against kernels.json, one test per rule and architecture. Every kernel
of the library must fall under exactly one rule and be launched by a case of bench/gpu/kernel_cases.cpp; every rule must
match. Needs no device. Exits 0 when all hold, 1 when one does not, 2 when a tool is missing.
"""

import argparse
import json
import pathlib
import re
import sys
import xml.etree.ElementTree as ElementTree

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "bench/gpu"))
import cubin_facts  # noqa: E402  (stands beside the table that it also serves)

ARCHITECTURES = (80, 90)
RULE_KEYS = {"kernel", "hot", "needs", "min_blocks", "except_min_blocks", "min_threads", "max_registers",
             "max_static_shared", "why"}


def load_rules(path):
    rules = json.loads(path.read_text())["rules"]
    for rule in rules:
        if unknown := set(rule) - RULE_KEYS:
            raise cubin_facts.FactsError(f"{path.name}: {rule.get('kernel')}: unknown {sorted(unknown)}")
        if unknown := set(rule.get("needs", [])) - set(cubin_facts.INSTRUCTIONS):
            raise cubin_facts.FactsError(f"{path.name}: {rule['kernel']}: unknown instruction {sorted(unknown)}")
    return rules


def code_violations(rule, kernel):
    if rule["hot"]:
        for name in ("local_store", "local_load"):
            if kernel.instructions[name]:
                yield f"{kernel.instructions[name]} {name} instructions: registers spill or an array is in local memory"
        if kernel.stack_bytes or kernel.local_bytes:
            yield f"{kernel.stack_bytes} bytes of stack, {kernel.local_bytes} of local memory"
    for name in rule.get("needs", []):
        if not kernel.instructions[name]:
            yield f"no {name} instruction"
    if kernel.registers > rule.get("max_registers", kernel.registers):
        yield f"{kernel.registers} registers, more than {rule['max_registers']}"
    if kernel.static_shared_bytes > rule.get("max_static_shared", kernel.static_shared_bytes):
        yield f"{kernel.static_shared_bytes} bytes of static shared memory, more than {rule['max_static_shared']}"


def occupancy_violations(rule, row):
    place = ARCHITECTURES.index(row["architecture"])
    blocks, threads = row["blocks_per_sm"], row["blocks_per_sm"] * row["threads"]
    wanted = rule.get("min_blocks")
    for pattern, other in rule.get("except_min_blocks", {}).items():
        if re.fullmatch(pattern, row["kernel"].name):
            wanted = other
    launch = f"{row['threads']} threads, {row['registers']} registers, " \
             f"{row['static_shared_bytes'] + row['dynamic_shared_bytes']} bytes of shared memory"
    if wanted and blocks < wanted[place]:
        yield f"{blocks} resident blocks, fewer than {wanted[place]} ({launch}; bound by {row['limit']})"
    if threads < rule.get("min_threads", (0, 0))[place]:
        yield f"{threads} resident threads, fewer than {rule['min_threads'][place]} ({launch}; bound by {row['limit']})"


def check(rules, kernels, rows):
    """{(name of the test): [violations]}"""
    results = {}
    for architecture in ARCHITECTURES:
        for rule in rules:
            results[f"{rule['kernel']} sm_{architecture}"] = []
    results["every kernel has one rule"] = []
    results["every kernel is launched by a case"] = []
    rule_of, matched = {}, set()
    for kernel in kernels:
        mine = [rule for rule in rules if re.fullmatch(rule["kernel"], kernel.name)]
        if len(mine) != 1 or kernel.architecture not in ARCHITECTURES:
            results["every kernel has one rule"].append(f"{kernel.name} sm_{kernel.architecture}: {len(mine)} rules")
            continue
        test = f"{mine[0]['kernel']} sm_{kernel.architecture}"
        rule_of[kernel.symbol] = mine[0]
        matched.add(test)
        results[test] += [f"{kernel.name}: {text}" for text in code_violations(mine[0], kernel)]
    for test in results:
        if " sm_" in test and test not in matched:
            results[test].append("the rule matches no kernel of the library")
    launched = set()
    for row in rows:
        kernel = row["kernel"]
        launched.add(kernel.symbol)
        if kernel.symbol in rule_of and row["architecture"] in ARCHITECTURES:
            rule = rule_of[kernel.symbol]
            texts = [f"{kernel.name}: {text}" for text in occupancy_violations(rule, row)]
            found = results[f"{rule['kernel']} sm_{row['architecture']}"]
            found += [text for text in texts if text not in found]
    results["every kernel is launched by a case"] += sorted(
        {kernel.name for kernel in kernels if kernel.symbol not in launched})
    return results


def write_junit(path, results):
    suite = ElementTree.Element("testsuite", name="cuda static", tests=str(len(results)),
                                failures=str(sum(1 for found in results.values() if found)))
    for test, found in results.items():
        case = ElementTree.SubElement(suite, "testcase", name=test, classname="cuda_static")
        if found:
            ElementTree.SubElement(case, "failure", message=found[0]).text = "\n".join(found)
    ElementTree.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--build", required=True, help="a build folder of the preset cuda")
    parser.add_argument("--junit", help="where to write a JUnit file")
    arguments = parser.parse_args()
    try:
        rules = load_rules(HERE / "kernels.json")
        kernels = cubin_facts.read_facts(cubin_facts.library_of(arguments.build))
        rows = cubin_facts.launched_kernels(kernels, cubin_facts.read_launches(arguments.build))
        cubin_facts.add_occupancy(arguments.build, rows)
    except (cubin_facts.FactsError, OSError) as error:
        print(f"cuda static checks: {error}", file=sys.stderr)
        return 2
    results = check(rules, kernels, rows)
    if arguments.junit:
        write_junit(arguments.junit, results)
    for test, found in results.items():
        for text in found:
            print(f"{test}: {text}")
    failed = sum(1 for found in results.values() if found)
    print(f"{len(kernels)} compiled kernels, {len(results) - failed} checks passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
