#!/usr/bin/env bash
# Everything that is checked before a change is accepted: packages, builds, unit tests, sanitizers, fuzzers, lint and
# end-to-end tests against the real program. All stages run, whatever fails; the exit code is 1 when any did.
#   tests/run.sh            what CI runs
#   tests/run.sh --full     fresh random seeds, longer fuzzing, more soak rounds, lint of every file, the lean CUDA build optimised
#   tests/run.sh --only release,e2e     some stages: deps python model release asan tsan cuda arm64 fuzz tidy image e2e
# The stage cuda compiles with nvcc what it can and looks at the machine code; it needs no GPU. Without nvcc it is skipped.
# Prints a table of minutes per stage; the last line is "N passed, N failed, N skipped" over all stages.
# Reads no input. Writes under build/ and the per-user cache (the model).
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
exec </dev/null

full=0
only=
while [ $# -gt 0 ]; do
  case "$1" in
    --full) full=1 ;;
    --only)
      [ $# -ge 2 ] || { echo "--only needs a list of stages" >&2; exit 2; }
      only=$2
      shift
      ;;
    -h|--help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "usage: $0 [--full] [--only STAGE,...]" >&2; exit 2 ;;
  esac
  shift
done

root=$PWD
results=$root/build/test-results
venv=$root/build/venv
rm -rf "$results"
mkdir -p "$results"
export CI=true PYTHONDONTWRITEBYTECODE=1 SEXTANT_FULL_TESTS=$full
# One seed for the random tests of every run, so that the answer depends on the commit alone; --full draws fresh ones.
[ "$full" = 1 ] || export SEXTANT_TEST_SEED=${SEXTANT_TEST_SEED:-20240601}
export ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1
export UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS=second_deadlock_stack=1:suppressions=$root/tests/tsan.supp
export CTEST_PARALLEL_LEVEL=${CTEST_PARALLEL_LEVEL:-$(nproc)}

# One compiler per core and per 1.5 GiB of free memory.
jobs=$(nproc)
memory_jobs=$(awk '/^MemAvailable:/ {print int($2 / 1572864)}' /proc/meminfo 2>/dev/null || echo "$jobs")
[ "${memory_jobs:-0}" -ge 1 ] || memory_jobs=1
[ "$jobs" -le "$memory_jobs" ] || jobs=$memory_jobs

wanted() { [ -z "$only" ] || case ",$only," in *",$1,"*) true ;; *) false ;; esac; }

# stage <group> <name> <JUnit file or -> <command...>: runs it when its group is wanted, and records seconds and exit
# status for the table. The JUnit file holds the stage's single tests.
stage() {
  local group=$1 name=$2 junit=$3 begin status
  shift 3
  wanted "$group" || return 0
  printf '\n===== %s\n' "$name"
  begin=$(date +%s.%N)
  "$@"
  status=$?
  printf '%s\t%s\t%s\t%s\n' "$name" "$(echo "$(date +%s.%N) $begin" | awk '{print $1 - $2}')" "$status" "$junit" \
    >>"$results/stages.tsv"
  [ "$status" = 0 ] || printf '===== %s FAILED (exit status %s)\n' "$name" "$status"
  return "$status"
}

install_packages() { deploy/install-deps.sh --test; }

make_venv() {
  local stamp=$venv/requirements.sha256
  if ! sha256sum --check --status "$stamp" 2>/dev/null; then
    rm -rf "$venv"
    python3 -m venv "$venv" &&
      "$venv/bin/pip" install --quiet --disable-pip-version-check --no-input -r tests/e2e/requirements.txt &&
      "$venv/bin/pip" install --quiet --disable-pip-version-check --no-input --no-deps -r tests/e2e/requirements-no-deps.txt &&
      sha256sum tests/e2e/requirements.txt tests/e2e/requirements-no-deps.txt >"$stamp"
  fi
}

fetch_model() {
  SEXTANT_TEST_MODEL=$(deploy/fetch-default-model.sh) && export SEXTANT_TEST_MODEL || return
  [ "$full" = 1 ] || return 0
  SEXTANT_TEST_GEMMA3=$(deploy/fetch-default-model.sh gemma3-270m-q4_k_m) && export SEXTANT_TEST_GEMMA3
}

build() {  # <preset> [cmake arguments]
  local preset=$1
  shift
  cmake --preset "$preset" -DSEXTANT_TESTS=ON "$@" >"$results/$preset-configure.log" 2>&1 ||
    { cat "$results/$preset-configure.log"; return 1; }
  cmake --build --preset "$preset" --parallel "$jobs" -- --quiet
}

run_ctest() {  # <preset>
  # Under a sanitizer the tiny checkpoints stand in for the default model, which would take minutes.
  local without=() limit=600
  [ "$full" = 0 ] || limit=7200  # whole golden files through the emulator
  [ "$1" = release ] || [ "$full" = 1 ] || without=(env -u SEXTANT_TEST_MODEL)
  [ "$1" = release ] || without=(env -u SEXTANT_TEST_GEMMA3 "${without[@]:1}")
  "${without[@]}" ctest --preset "$1" --timeout "$limit" --output-junit "$results/$1-tests.xml" >"$results/$1-tests.log" 2>&1
  local status=$?
  if [ "$status" = 0 ]; then tail -n 12 "$results/$1-tests.log"; else
    grep -vE '^ *[0-9]+/[0-9]+ Test .*Passed|^ *Start ' "$results/$1-tests.log" | tail -n 400
  fi
  return "$status"
}

nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
[ -f "$nvcc" ] && [ -x "$nvcc" ] || nvcc=

build_cuda() {
  if [ -z "$nvcc" ]; then echo "no nvcc on this machine: CUDA is compiled nowhere in this run"; return 0; fi
  CUDACXX=$nvcc cmake --preset cuda -DSEXTANT_TESTS=ON -DSEXTANT_SERVER=ON >"$results/cuda-configure.log" 2>&1 ||
    { cat "$results/cuda-configure.log"; return 1; }
  cmake --build --preset cuda --parallel "$jobs" --target sextant_cuda_kernels kernel_launches kernel_occupancy \
    kernels_bench engine_bench test_kernels_cuda test_device sextant -- --quiet
}

check_cuda() {
  if [ -z "$nvcc" ]; then
    echo "SKIPPED: no nvcc on this machine, so no CUDA kernel was compiled and no machine code was looked at"
    echo '<testsuite><testcase classname="cuda_static" name="all"><skipped message="no nvcc"/></testcase></testsuite>' \
      >"$results/cuda-static.xml"
    return 0
  fi
  "$venv/bin/python" tests/cuda_static/check_kernels.py --build build/cuda --junit "$results/cuda-static.xml" &&
    "$venv/bin/python" bench/gpu/kernel_table.py --build build/cuda --out "$results/cuda-kernels.md"
}

check_bare_build() {
  local all=()
  [ "$full" = 0 ] || all=(--full)
  tests/cuda_static/bare_build.sh "${all[@]}"
  local status=$?
  [ "$status" = 77 ] || return "$status"
  echo "SKIPPED: the lean build in a bare root was not tried"
}

have_arm64() { command -v aarch64-linux-gnu-g++ >/dev/null && command -v qemu-aarch64-static >/dev/null; }

build_arm64() {
  have_arm64 || { echo "no g++-aarch64-linux-gnu or qemu-user-static: nothing is compiled for Arm in this run"; return 0; }
  build arm64
}

check_arm64() {
  if have_arm64; then run_ctest arm64; return; fi
  echo "SKIPPED: no g++-aarch64-linux-gnu or qemu-user-static, so no kernel for Arm was compiled or run"
  echo '<testsuite><testcase classname="arm64" name="all"><skipped message="no cross compiler or no qemu"/></testcase></testsuite>' \
    >"$results/arm64-tests.xml"
}

run_fuzzers() {
  local seconds=10
  [ "$full" = 0 ] || seconds=120
  python3 tests/fuzz/run_fuzzers.py --build build/fuzz --seconds "$seconds" --junit "$results/fuzz.xml"
}

run_tidy() {
  local scope=changed limit=180
  [ "$full" = 0 ] || { scope=all limit=3600; }
  python3 tests/lint/run_tidy.py --build build/release --scope "$scope" --limit-s "$limit" --jobs "$jobs" \
    --junit "$results/tidy.xml"
}

run_e2e() {
  SEXTANT_BINARY=$root/build/release/server/sextant \
    "$venv/bin/python" -m pytest tests/e2e -q -p no:cacheprovider --junitxml="$results/e2e.xml" --durations=8
}

# The image around the program of the release build; skipped, with the reason, where images cannot be built.
run_image() {
  SEXTANT_BINARY=$root/build/release/server/sextant \
    "$venv/bin/python" -m pytest tests/image -q -rs -p no:cacheprovider --junitxml="$results/image.xml"
}

stage deps "packages" - install_packages
stage python "python test clients" - make_venv
wanted model && stage model "model" - fetch_model
if [ -z "${SEXTANT_TEST_MODEL:-}" ]; then echo "no model: tests that need one will be skipped"; fi
stage release "release build" - build release -DSEXTANT_BENCH=ON && stage release "release tests" release-tests.xml run_ctest release
stage asan "asan build" - build asan && stage asan "asan tests" asan-tests.xml run_ctest asan
stage tsan "tsan build" - build tsan && stage tsan "tsan tests" tsan-tests.xml run_ctest tsan
stage cuda "cuda build" - build_cuda && stage cuda "cuda static checks" cuda-static.xml check_cuda
stage cuda "cuda lean build" - check_bare_build
stage arm64 "arm64 build" - build_arm64 && stage arm64 "arm64 tests in qemu" arm64-tests.xml check_arm64
stage fuzz "fuzz build" - build fuzz && stage fuzz "fuzz run" fuzz.xml run_fuzzers
stage tidy "clang-tidy" tidy.xml run_tidy
stage image "container image" image.xml run_image
stage e2e "end to end" e2e.xml run_e2e

exec python3 tests/summarize.py "$results"
