"""The static gates can fail: each rule on facts that were doctored to break it, and each reader on text that was.

Standard library only; needs neither toolkit nor build. Run: python3 tests/cuda_static/check_kernels_test.py
"""

import copy
import unittest

import check_kernels  # first: it finds cubin_facts
import cubin_facts

SYMBOL = "_ZN7sextant4copyEv"
RESOURCES = """
Fatbin elf code:
================
arch = sm_80

Resource usage:
 Function _ZN7sextant4copyEv:
  REG:40 STACK:0 SHARED:2048 LOCAL:0 CONSTANT[0]:400
Fatbin elf code:
================
arch = sm_90
 Function _ZN7sextant4copyEv:
  REG:41 STACK:0 SHARED:3072 LOCAL:0 CONSTANT[0]:560
"""
BODY = """
		Function : _ZN7sextant4copyEv
	.headerflags	@"EF_CUDA_SM80"
        /*0000*/                   MOV R1, c[0x0][0x28] ;              /* 0x00000a0000017a02 */
        /*0010*/              @!P0 LDG.E.128.CONSTANT R4, [R2.64] ;    /* 0x0000000406047981 */
                                                                       /* 0x000e62000c1e9900 */
        /*0020*/                   HMMA.16816.F32.BF16 R8, R4, R2, R8 ;/* 0x0000000204087217 */
        /*0030*/                   STG.E.128 [R2.64], R4 ;             /* 0x0000000402007986 */
        /*0040*/               @P1 EXIT ;                              /* 0x000000000000194d */
"""
SASS = "	code for sm_80\n" + BODY + "	code for sm_90\n" + BODY
RULE = {"kernel": "copy_kernel<.*>", "hot": True, "needs": ["tensor_core", "wide_global_load", "wide_global_store"],
        "min_blocks": [4, 4], "min_threads": [512, 512], "max_registers": 64, "max_static_shared": 2048, "why": "test"}


def demangle(symbols):
    return {symbol: "void sextant::kernels::cuda::(anonymous namespace)::copy_kernel<__half>(CopyArgs)"
            for symbol in symbols}


def facts(resources=RESOURCES, sass=SASS):
    return cubin_facts.facts_from(resources, sass, demangle)


def launches(kernels):
    of_case = {"op": "copy", "shape": "", "launches": [
        {"kernel": SYMBOL, "grid": [1, 1, 1], "threads": 128, "dynamic_shared_bytes": 0}]}
    rows = cubin_facts.launched_kernels(kernels, {"cases": [of_case]})
    for row in rows:
        row["blocks_per_sm"], row["limit"] = 4, "registers"
    return rows


def violations(rule=None, kernels=None, rows=None):
    kernels = facts() if kernels is None else kernels
    results = check_kernels.check([RULE if rule is None else rule], kernels, launches(kernels) if rows is None else rows)
    return [text for found in results.values() for text in found]


class Gate(unittest.TestCase):
    def fails_with(self, part, **doctored):
        found = violations(**doctored)
        self.assertTrue(any(part in text for text in found), f"'{part}' is not in {found}")

    def test_sound_facts_pass(self):
        self.assertEqual(violations(), [])

    def test_spills(self):
        for opcode in ("STL [R1], R4", "LDL.LU R4, [R1]", "@P0 LDL.64 R4, [R1+0x8]"):
            doctored = SASS.replace("MOV R1, c[0x0][0x28]", opcode)
            self.fails_with("instructions: registers spill", kernels=facts(sass=doctored))

    def test_spills_are_allowed_where_a_kernel_is_not_hot(self):
        doctored = SASS.replace("MOV R1, c[0x0][0x28]", "STL [R1], R4")
        self.assertEqual(violations(rule=RULE | {"hot": False}, kernels=facts(sass=doctored)), [])

    def test_stack(self):
        self.fails_with("bytes of stack", kernels=facts(resources=RESOURCES.replace("STACK:0", "STACK:16")))

    def test_missing_instructions(self):
        self.fails_with("no tensor_core", kernels=facts(sass=SASS.replace("HMMA.16816.F32.BF16", "FFMA")))
        self.fails_with("no wide_global_load", kernels=facts(sass=SASS.replace("LDG.E.128.CONSTANT", "LDG.E.64")))
        self.fails_with("no wide_global_store", kernels=facts(sass=SASS.replace("STG.E.128", "STG.E")))

    def test_one_architecture_alone_breaks_a_rule(self):
        doctored = "	code for sm_80\n" + BODY + "	code for sm_90\n" + BODY.replace("HMMA", "FFMA")
        results = check_kernels.check([RULE], facts(sass=doctored), launches(facts()))
        self.assertEqual([test for test, found in results.items() if found], ["copy_kernel<.*> sm_90"])

    def test_registers_and_shared_memory(self):
        self.fails_with("70 registers, more than 64", kernels=facts(resources=RESOURCES.replace("REG:40", "REG:70")))
        self.fails_with("4096 bytes of static shared memory",
                        kernels=facts(resources=RESOURCES.replace("SHARED:2048", "SHARED:4096")))

    def test_occupancy(self):
        rows = launches(facts())
        rows[0]["blocks_per_sm"] = 3
        self.fails_with("3 resident blocks, fewer than 4", rows=rows)
        self.fails_with("384 resident threads, fewer than 512", rows=rows)

    def test_kernels_without_rule_rules_without_kernel_and_launches_of_none(self):
        self.fails_with("0 rules", rule=RULE | {"kernel": "other_kernel"})
        self.fails_with("the rule matches no kernel", rule=RULE | {"kernel": "other_kernel"})
        results = check_kernels.check([RULE, RULE | {"kernel": "copy.*"}], facts(), launches(facts()))
        self.assertIn("2 rules", results["every kernel has one rule"][0])
        self.assertEqual(violations(rows=[]), ["copy_kernel<fp16>", ])


class Reader(unittest.TestCase):
    def test_reads_both_architectures(self):
        kernels = facts()
        self.assertEqual([(k.name, k.architecture, k.registers, k.static_shared_bytes) for k in kernels],
                         [("copy_kernel<fp16>", 80, 40, 2048), ("copy_kernel<fp16>", 90, 41, 2048)])
        self.assertEqual(kernels[0].instructions["all"], 5)

    def test_refuses_what_it_does_not_understand(self):
        for resources, sass in (("", ""), (RESOURCES, ""), ("", SASS), (RESOURCES, SASS.replace("/*00", "--00"))):
            with self.assertRaises(cubin_facts.FactsError):
                facts(resources, sass)

    def test_refuses_a_launch_of_an_unknown_kernel(self):
        case = {"op": "copy", "shape": "", "launches": [{"kernel": "_Zother"}]}
        with self.assertRaises(cubin_facts.FactsError):
            cubin_facts.launched_kernels(copy.deepcopy(facts()), {"cases": [case]})

    def test_wide_shared_loads_and_narrow_copies_do_not_count(self):
        for opcode in ("LDS.128", "LDG.E.64", "LDGSTS.E.64", "LDL.128"):
            doctored = SASS.replace("LDG.E.128.CONSTANT", opcode)
            self.assertEqual(facts(sass=doctored)[0].instructions["wide_global_load"], 0, opcode)
        for opcode in ("LDG.E.128", "LDGSTS.E.BYPASS.LTC128B.128", "LDG.E.NA.128.CONSTANT"):
            doctored = SASS.replace("LDG.E.128.CONSTANT", opcode)
            self.assertEqual(facts(sass=doctored)[0].instructions["wide_global_load"], 1, opcode)


if __name__ == "__main__":
    unittest.main()
