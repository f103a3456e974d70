"""bench/gpu_check.sh's parts that need no GPU: what is read back, what is refused, what a table says.

Standard library only. Run: python3 tests/cuda_static/gpu_check_test.py
"""

import contextlib
import io
import pathlib
import stat
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent / "bench/gpu"))
import gpu_check  # noqa: E402  (stands with the script that it serves)

ROOFS = [{"name": "H200", "memory_tb_per_s": 4.0, "bf16_tflop_per_s": 1000}]
DEVICE = {"device": "NVIDIA H200", "model_shape": "some", "is_emulated": False}
# 4 GB at 4 TB/s take 1 ms; it took 2.
BY_MEMORY = {"case": "a x", "op": "a", "shape": "x", "bytes": 4e9, "flops": 1e9, "median_s": 0.002}
# 5e12 operations at 1e15 a second take 5 ms; it took 10.
BY_TENSOR_CORES = {"case": "b y", "op": "b", "shape": "y", "bytes": 4e9, "flops": 5e12, "median_s": 0.010}


class Table(unittest.TestCase):
    def rows(self, *records):
        return [line for line in gpu_check.measurement_table(list(records), ROOFS) if line.startswith(("| a", "| b"))]

    def test_percent_of_the_roof_that_binds(self):
        self.assertEqual(self.rows(DEVICE, BY_MEMORY, BY_TENSOR_CORES),
                         ["| a | x | 2000.00 | 2000 | 0.50 | 50.0 |", "| b | y | 10000.00 | 400 | 500.00 | 50.0 |"])

    def test_a_later_record_of_a_case_wins_and_errors_are_shown(self):
        error = {"case": "a x", "error": "launch: out of memory"}
        self.assertEqual(self.rows(DEVICE, error, BY_MEMORY), ["| a | x | 2000.00 | 2000 | 0.50 | 50.0 |"])
        self.assertEqual(self.rows(DEVICE, BY_MEMORY, error), ["| a x | launch: out of memory | | | | |"])

    def test_no_percent_on_a_device_whose_roof_is_unknown(self):
        self.assertEqual(self.rows(DEVICE | {"device": "L4"}, BY_MEMORY), ["| a | x | 2000.00 | 2000 | 0.50 |  |"])

    def test_refuses_emulated_nameless_and_mixed_records(self):
        for records in ([DEVICE | {"is_emulated": True}, BY_MEMORY], [BY_MEMORY],
                        [DEVICE, BY_MEMORY, DEVICE | {"device": "NVIDIA A100"}]):
            with self.assertRaises(ValueError):
                list(gpu_check.measurement_table(records, ROOFS))


class EngineTable(unittest.TestCase):
    LOAD = {"engine_case": "load", "device": "cuda (" + DEVICE["device"] + ", compute capability 9.0)", "shape": "llama-8b",
            "ready_s": 12.0, "weight_bytes": 16 << 30}
    DECODE = {"engine_case": "decode/1/1024", "median_step_s": 0.01, "tokens_per_s": 100, "bytes": 20e9, "flops": 30e9}
    FULL = {"engine_case": "load/256x1000/1000", "output_tokens_per_s": 9000, "device_busy_share": 0.991, "num_preemptions": 0}

    def test_percent_of_the_roof_and_the_busy_share(self):
        lines = list(gpu_check.engine_table([self.LOAD, self.DECODE, self.FULL], ROOFS))
        bandwidth = next(roof["memory_tb_per_s"] for roof in ROOFS if roof["name"] in self.LOAD["device"])
        self.assertIn(f"| decode/1/1024 | 10.000 | 100 | {100 * 20e9 / (bandwidth * 1e12) / 0.01:.1f} |", lines)
        self.assertIn("99.1% of the time", lines[-1])

    def test_refuses_what_no_device_measured(self):
        with self.assertRaises(ValueError):
            list(gpu_check.engine_table([self.LOAD | {"device": "cuda-emulated (A100)"}, self.DECODE], ROOFS))
        self.assertEqual(list(gpu_check.engine_table([DEVICE, BY_MEMORY], ROOFS)), [])

    def test_kernel_tables_do_not_mind_the_engines_records(self):
        self.assertTrue(list(gpu_check.measurement_table([DEVICE, BY_MEMORY, self.LOAD, self.DECODE], ROOFS)))


class Records(unittest.TestCase):
    def test_a_line_that_was_cut_off_is_not_read_and_spoils_no_other(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "test.jsonl"
            self.assertEqual(gpu_check.read_lines(path), [])
            gpu_check.append_line(path, {"suite": "one"})
            with path.open("a") as file:
                file.write('\n{"suite": "tw')
            gpu_check.append_line(path, {"suite": "three"})
            self.assertEqual([record["suite"] for record in gpu_check.read_lines(path)], ["one", "three"])


class TestStage(unittest.TestCase):
    PROGRAM = """#!/bin/sh
case $1 in
  --gtest_list_tests) printf 'First.\\n  a\\nSecond.\\n  b\\n' ;;
  *) echo "$1" >>{ran}; case $1 in *Second*) exit {status} ;; esac ;;
esac
"""

    def run_stage(self, folder, status):
        ran = folder / "ran"
        for name in gpu_check.TEST_PROGRAMS:
            program = folder / "tests" / name
            program.parent.mkdir(exist_ok=True)
            program.write_text(self.PROGRAM.format(ran=ran, status=status))
            program.chmod(program.stat().st_mode | stat.S_IXUSR)
        ran.write_text("")
        return gpu_check.test(folder, folder, 1), ran.read_text().split()

    def test_failed_suites_run_again_and_passed_ones_do_not_until_the_program_changes(self):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            programs = len(gpu_check.TEST_PROGRAMS)
            first = "--gtest_filter=First.*"
            second = "--gtest_filter=Second.*"
            self.assertEqual(self.run_stage(folder, 1), (gpu_check.FAILED, [first, second] * programs))
            self.assertEqual(self.run_stage(folder, 1), (gpu_check.FAILED, [second] * programs))
            self.assertEqual(self.run_stage(folder, 0), (gpu_check.DONE, [first, second] * programs))
            self.assertEqual(self.run_stage(folder, 0), (gpu_check.DONE, []))

    def test_a_program_that_was_not_built_is_a_failure(self):
        with tempfile.TemporaryDirectory() as name:
            self.assertEqual(gpu_check.test(pathlib.Path(name), pathlib.Path(name), 1), gpu_check.FAILED)


class MultiGpuStage(unittest.TestCase):
    def run_stage(self, gpus, program=None):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            if program is not None:
                path = folder / "tests" / "test_device"
                path.parent.mkdir()
                path.write_text(program)
                path.chmod(path.stat().st_mode | stat.S_IXUSR)
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                status = gpu_check.multi_gpu(folder, folder, 1, count=lambda: gpus)
            return status, said.getvalue(), gpu_check.read_lines(folder / "multi_gpu.jsonl")

    def test_one_gpu_is_skipped_aloud(self):
        for gpus in (0, 1):
            status, said, records = self.run_stage(gpus)
            self.assertEqual(status, gpu_check.DONE)
            self.assertIn(f"SKIPPED: this machine shows {gpus} GPU", said)
            self.assertEqual(records[0]["status"], "skipped")

    def test_several_run_the_tests_and_a_test_that_skips_itself_has_not_passed(self):
        self.assertEqual(self.run_stage(2, "#!/bin/sh\nexit 0\n")[0], gpu_check.DONE)
        self.assertEqual(self.run_stage(2, "#!/bin/sh\nexit 1\n")[0], gpu_check.FAILED)
        self.assertEqual(self.run_stage(2)[0], gpu_check.FAILED)
        status, said, records = self.run_stage(2, "#!/bin/sh\necho '[  SKIPPED ] no NCCL'\n")
        self.assertEqual((status, records[0]["status"]), (gpu_check.FAILED, "skipped"))
        self.assertIn("NOT passed", said)


if __name__ == "__main__":
    unittest.main()
