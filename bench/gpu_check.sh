#!/usr/bin/env bash
# Everything that a machine with a GPU can tell: builds kernels and engine, runs the CUDA tests on the device, measures kernels.
#   bench/gpu_check.sh                        stages build, test, multi_gpu, measure; run it again to go on where it stopped
#   bench/gpu_check.sh --stages build,test    some of them
#                                             (multi_gpu: collectives between GPUs; skipped, and said so, where there is one)
#   bench/gpu_check.sh --pack FILE.tar.gz     an archive for a machine that has only gcc, CMake, CUDA and Python
# Downloads nothing. Each stage ends within 8 minutes and writes JSON as it goes to build/gpu-check; measure also writes a
# markdown table to bench/results. Exit status: 0 done, 1 something failed, 2 bad arguments, 3 out of time: run it again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec python3 bench/gpu/gpu_check.py "$@"
