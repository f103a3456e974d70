"""Every rule of check_house.py accepts a small clean tree and finds each violation put into it: a rule that cannot fail
guards nothing."""

import os
import pathlib
import tempfile
import unittest

import check_house

HEADER = "// What it is for.\n#pragma once\n"
CLEAN = {
    "README.md": "Reads `engine/base/a.{h,cpp}`, `engine/base/*.h` and `tests/`; a Hub id is `owner/name`.\n",
    "engine/README.md": "`base/a.h` first.\n",
    "server/README.md": "-\n",
    "tests/README.md": "-\n",
    "kernels/README.md": "-\n",
    "engine/base/a.h": HEADER,
    "engine/base/a.cpp": '#include "engine/base/a.h"\n',
    "engine/config.h": HEADER + '#include "engine/base/a.h"\n',
    "engine/engine.h": HEADER + '#include "engine/config.h"\n',
    "engine/core/scheduler.h": HEADER + '#include <vector>\n\n#include "engine/config.h"\n',
    "engine/model/llama.cpp": "// Llama.\n",
    "server/http/session.cpp": "#include <boost/beast/core.hpp>\n",
    "server/main.cpp": '#include "engine/core/scheduler.h"\n',
    "kernels/matmul.h": HEADER,
    "tests/CMakeLists.txt": "sextant_test(test_base engine/base sextant_base)\n",
    "tests/engine/base/a_test.cpp": '#include "engine/base/a.h"\nTEST(A, B) {}\n',
    "tests/run.sh": "#!/usr/bin/env bash\nset -euo pipefail\n",
}


def violations(rule, changes=None):
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for name, text in {**CLEAN, **(changes or {})}.items():
            if text is None:
                continue
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            if name.endswith(".sh"):
                os.chmod(path, 0o755)
        return list(check_house.RULES[rule](check_house.Tree(root)))


class Rules(unittest.TestCase):
    def test_a_clean_tree_has_no_violations(self):
        for rule in check_house.RULES:
            self.assertEqual(violations(rule), [], rule)

    def assert_found(self, rule, changes, part):
        found = violations(rule, changes)
        self.assertTrue(any(part in violation for violation in found), f"{rule} {changes}: {found}")

    def test_includes(self):
        bad = [
            ("engine/base/a.cpp", '#include "engine/config.h"\n'),
            ("kernels/matmul.h", HEADER + '#include "engine/base/a.h"\n'),
            ("engine/core/scheduler.h", HEADER + '#include "kernels/matmul.h"\n'),
            ("engine/core/scheduler.h", HEADER + "#include <mutex>\n"),
            ("engine/core/scheduler.h", HEADER + "#include <nlohmann/json.hpp>\n"),
            ("engine/model/llama.cpp", '#include "engine/core/scheduler.h"\n'),
            ("engine/model/llama.cpp", "#ifdef FAST\n#endif\n"),
            ("engine/engine.h", HEADER + '#include "server/http/session.cpp"\n'),
            ("engine/engine.h", HEADER + "#include <boost/asio.hpp>\n"),
            ("server/http/session.cpp", '#include "engine/engine.h"\n'),
            ("server/http/session.cpp", '#include "engine/core/scheduler.h"\n'),
            ("server/openai/chat.cpp", '#include "engine/core/scheduler.h"\n'),
            ("server/openai/chat.cpp", "#include <cuda_runtime.h>\n"),
            ("engine/base/a.cpp", '#include "a.h"\n'),
            ("elsewhere/b.cpp", "\n"),
        ]
        for name, text in bad:
            self.assert_found("includes", {name: text}, name)

    def test_sizes(self):
        self.assert_found("sizes", {"engine/base/b.cpp": "\n" * 801}, "801 lines")
        self.assert_found("sizes", {"engine/base/b.cpp": "// A table.\n" + "\n" * 600}, "head comment")
        self.assertEqual(violations("sizes", {"engine/base/b.cpp": "// Long because it is a table.\n" + "\n" * 600}), [])
        self.assert_found("sizes", {"engine/base/b.h": "#pragma once\n"}, "head comment")
        self.assert_found("sizes", {"engine/base/b.h": "// B.\n"}, "pragma once")

    def test_names(self):
        for name in ("engine/base/string_utils.cpp", "server/misc/a.cpp", "engine/fast_path.h", "kernels/matmul_v2.h"):
            self.assert_found("names", {name: HEADER}, name)
        self.assert_found("names", {"engine/base/CamelCase.h": HEADER}, "snake_case")
        self.assertEqual(violations("names", {"engine/base/renewal.cpp": "", "engine/base/breakfast.h": HEADER}), [])

    def test_beast(self):
        many = {f"server/http/s{i}.cpp": '#include "server/http/asio.h"\n' for i in range(6)}
        many["server/http/asio.h"] = HEADER + "#include <boost/beast/http.hpp>\n"
        self.assert_found("beast", many, "7 sources")

    def test_paths(self):
        for text in ("see /ro" + "ot/x", "cd /wo" + "rk/main", "pip --index" + "-url x", "http://10.1.2.3" + ":8080/"):
            self.assert_found("paths", {"notes.md": text}, "notes.md:1")
        self.assertEqual(violations("paths", {"notes.md": "GET /v1/models at http://127.0.0.1:8000, frame" + "work/x"}), [])

    def test_readmes(self):
        self.assert_found("readmes", {"README.md": "`engine/base/gone.h`\n"}, "gone.h")
        self.assert_found("readmes", {"README.md": "`engine/base/a.{h,cc}`\n"}, "a.cc")
        self.assert_found("readmes", {"README.md": "`tests/run.sh --full` and `tests/walk.sh`\n"}, "walk.sh")
        self.assert_found("readmes", {"server/README.md": None}, "server/README.md: is missing")

    def test_tests(self):
        self.assert_found("tests", {"tests/engine/core/b_test.cpp": "TEST(A, B) {}\n"}, "no test program")
        self.assert_found("tests", {"tests/engine/base/b_test.cpp": "// later\n"}, "no test")
        self.assert_found("tests", {"tests/engine/base/b_test.cpp": "TEST(A, DISABLED_B) {}\n"}, "disabled")
        self.assert_found("tests", {"tests/engine/base/b_tests.cpp": "TEST(A, B) {}\n"}, "nothing builds it")
        self.assert_found("tests", {"engine/base/b_test.cpp": "TEST(A, B) {}\n"}, "under tests/")
        self.assert_found("tests", {"tests/e2e/chat.py": "def test_it():\n    pass\n"}, "pytest")

    def test_scripts(self):
        self.assert_found("scripts", {"tests/run.sh": "#!/bin/bash\nset -u\nif\n"}, "syntax error")
        self.assert_found("scripts", {"tests/run.sh": "#!/bin/bash\necho\n"}, "set -u")
        self.assert_found("scripts", {"tests/run": "#!/bin/bash\nset -u\n"}, "not executable")
        self.assert_found("scripts", {"tests/a.py": "def\n"}, "a.py:1")

    def test_format(self):
        self.assert_found("format", {"engine/base/a.h": HEADER + "int  a( ) ;\n"}, "engine/base/a.h:3")


if __name__ == "__main__":
    unittest.main()
