#!/usr/bin/env bash
# Proves that what `bench/gpu_check.sh --pack` makes builds where there is gcc, CMake, CUDA and Python and nothing else of what
# Sextant is usually built from: unpacks it in an empty folder and builds in a mount namespace in which the headers, packages
# and tools of the others are not there.
#   tests/cuda_static/bare_build.sh          the programs that measure, kernels and engine whole, not optimised and as PTX alone; of the
#                                            test programs GoogleTest, and that every header of theirs is there
#   tests/cuda_static/bare_build.sh --full   all as a machine with a GPU would build it: optimised, for two architectures
# Exit status: 0 it builds, 1 it does not, 77 this machine allows no namespace of one's own, or has no nvcc.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# What is needed from outside does not depend on the optimiser; the minutes do.
arguments=(--targets kernels_bench,kernel_launches,kernel_occupancy,engine_bench,gmock,gtest_main
  --define CMAKE_BUILD_TYPE=None --define CMAKE_CUDA_ARCHITECTURES=80-virtual --define "CMAKE_CUDA_FLAGS=-Xcicc -O0")
case "${1:-}" in
  "") ;;
  --full) arguments=() ;;
  *) echo "usage: $0 [--full]" >&2; exit 1 ;;
esac

nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
[ -x "$nvcc" ] || { echo "no nvcc"; exit 77; }
unshare --mount --map-root-user true 2>/dev/null || unshare --mount true 2>/dev/null || { echo "no mount namespaces"; exit 77; }
flags=(--mount)
unshare --mount true 2>/dev/null || flags+=(--map-root-user)

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
bench/gpu_check.sh --pack "$scratch/pack.tar.gz"
mkdir "$scratch/root" "$scratch/nothing"
tar -xzf "$scratch/pack.tar.gz" -C "$scratch/root"

export scratch nvcc checkout=$PWD
# shellcheck disable=SC2016  # the inner shell expands
exec_in_namespace='
set -e
lib=/usr/lib/$(uname -m)-linux-gnu
for folder in /usr/include/{nlohmann,openssl,curl,boost,gtest,gmock,benchmark,unicode} \
    "/usr/include/$(uname -m)-linux-gnu"/{openssl,curl} /usr/src/googletest "$lib"/{cmake,pkgconfig} /usr/lib/cmake \
    /usr/share/{cmake/nlohmann_json,pkgconfig} "$checkout"; do
  if [ -d "$folder" ]; then mount --bind "$scratch/nothing" "$folder"; fi
done
for tool in ccache pkg-config pkgconf ninja git; do
  for place in /usr/bin /usr/local/bin; do
    if [ -e "$place/$tool" ]; then mount --bind /dev/null "$place/$tool"; fi
  done
done
cd "$scratch/root/sextant"
export PATH=$(dirname "$nvcc"):/usr/bin:/bin
for attempt in 1 2 3; do  # 3: out of time, to be taken up where it stopped
  status=0
  bench/gpu_check.sh --stages build "$@" || status=$?
  [ "$status" = 3 ] || break
done
[ "$status" = 0 ] || { tail -n 40 build/gpu-check/build.log; exit 1; }
if [ $# -gt 0 ]; then
  cd build/gpu-check/build/tests
  sources=$(make help | sed -n "s/^\.\.\. \(\(kernels\/cuda\|engine\/device\)\/[a-z0-9_]*\.i\)$/\1/p")
  make -s -j"$(nproc)" $sources >preprocess.log 2>&1 || { tail -n 40 preprocess.log; exit 1; }
  echo "  the headers of $(echo "$sources" | wc -l) test sources are there"
fi
'
cd /
unshare "${flags[@]}" bash -c "$exec_in_namespace" bash "${arguments[@]}"
