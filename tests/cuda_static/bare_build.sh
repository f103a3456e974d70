#!/usr/bin/env bash
# Proves that what `bench/gpu_check.sh --pack` makes builds where there is gcc, CMake, CUDA and Python and nothing else of what
# Sextant is usually built from: unpacks it in an empty folder and builds in a mount namespace in which the headers, packages
# and tools of the others are not there.
# Exit status: 0 it builds, 1 it does not, 77 this machine allows no namespace of one's own, or has no nvcc.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

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
PATH=$(dirname "$nvcc"):/usr/bin:/bin bench/gpu_check.sh --stages build
'
cd /
unshare "${flags[@]}" bash -c "$exec_in_namespace"
