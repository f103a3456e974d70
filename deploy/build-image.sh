#!/usr/bin/env bash
# Builds a container image of `sextant` with buildah, without a daemon, and where no registry of images can be reached.
#   deploy/build-image.sh                        deploy/Dockerfile.cpu, compiled in its build stage, as sextant:cpu
#   deploy/build-image.sh --cuda                 deploy/Dockerfile.cuda as sextant:cuda
#   deploy/build-image.sh --binary FILE          take this program (built on Debian 12) instead of compiling again
#   deploy/build-image.sh --base IMAGE           on this image; default: a Debian 12 that mmdebstrap makes from the package
#                                                sources that apt is configured with (kept for a day in the work folder)
#   deploy/build-image.sh --tag NAME             name of the image
#   deploy/build-image.sh --output FILE.tar      also write the image as an OCI archive (docker load, podman load)
#   deploy/build-image.sh --sbom FILE.json       also write what the image holds, package by package (SPDX 2.3, from dpkg)
#   deploy/build-image.sh --ccache DIR           a compiler cache that the build stage may use
#   deploy/build-image.sh --work DIR             where images and layers are kept (default: build/image)
# Root is needed: layers are plain folders (storage driver vfs), commands run in a chroot. Progress goes to stderr; the image's id
# and its size in bytes are printed as the last line.
# Exit codes: 0 built, 1 failed, 2 bad arguments, 77 this machine cannot build images (the message says what is missing).
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
say() { echo "build-image: $*" >&2; }
die() { say "$*"; exit 1; }
cannot() { say "$*"; exit 77; }

kind=cpu base='' binary='' tag='' output='' ccache_dir='' sbom='' work=$root/build/image
while [ $# -gt 0 ]; do
  case "$1" in
    --cpu) kind=cpu ;;
    --cuda) kind=cuda ;;
    --binary|--base|--tag|--output|--work|--ccache|--sbom)
      [ $# -ge 2 ] || { say "$1 needs a value"; exit 2; }
      case "$1" in
        --binary) binary=$2 ;;
        --base) base=$2 ;;
        --tag) tag=$2 ;;
        --output) output=$2 ;;
        --work) work=$2 ;;
        --ccache) ccache_dir=$2 ;;
        --sbom) sbom=$2 ;;
      esac
      shift
      ;;
    -h|--help) sed -n '2,16s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) say "unknown argument '$1'; --help lists what there is"; exit 2 ;;
  esac
  shift
done
tag=${tag:-sextant:$kind}
[[ $tag =~ ^[a-z0-9][a-z0-9._/:-]{0,254}$ ]] || { say "--tag takes a name such as registry/sextant:1.0, not '$tag'"; exit 2; }
if [ -n "$binary" ] && { [ ! -f "$binary" ] || [ ! -x "$binary" ]; }; then
  say "--binary: no program at '$binary'"
  exit 2
fi
[ -z "$ccache_dir" ] || [ -d "$ccache_dir" ] || { say "--ccache: no folder '$ccache_dir'"; exit 2; }

[ "$(id -u)" = 0 ] || cannot "not root"
for tool in buildah strip; do
  command -v "$tool" >/dev/null || cannot "no $tool: apt-get install buildah binutils"
done
mkdir -p "$work"
work=$(cd "$work" && pwd)
exec 9>"$work/.lock"
flock 9   # one build at a time in one work folder
scratch=$(mktemp -d "$work/scratch.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
run_buildah() { buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs "$@"; }

# A Debian 12 of the packages that every Debian has and apt, from wherever apt on this machine takes its packages.
make_base() {
  local tar=$work/base.tar
  if [ -z "$(find "$tar" -mmin -1440 2>/dev/null)" ]; then
    command -v mmdebstrap >/dev/null || cannot "no mmdebstrap: apt-get install mmdebstrap, or name an image with --base"
    apt-get indextargets --format "deb \$(REPO_URI) \$(RELEASE) \$(COMPONENT)" "Created-By: Packages" "Origin: Debian" |
      sort -u | awk '$3 ~ /^(bookworm|oldstable|stable)/' >"$scratch/sources.list"
    [ -s "$scratch/sources.list" ] || cannot "apt on this machine has no sources of Debian 12; name an image with --base"
    (cd "$scratch" && apt-get download -qq base-files >/dev/null 2>&1) ||
      cannot "apt cannot download from its sources (apt-get download base-files failed)"
    apt-config dump --format '%f "%v";%n' Acquire::http::Proxy Acquire::https::Proxy >"$scratch/apt.conf"
    say "making a base of Debian 12 with mmdebstrap"
    mmdebstrap --quiet --mode=root --variant=essential --include=apt --aptopt="$scratch/apt.conf" \
      --aptopt='APT::Install-Recommends "false"' --dpkgopt=force-unsafe-io \
      --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
      --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
      bookworm "$scratch/base.tar" "$scratch/sources.list" >&2 || die "mmdebstrap failed; its messages are above"
    mv "$scratch/base.tar" "$tar"
  fi
  say "base from $tar"
  local container
  container=$(run_buildah from scratch)
  run_buildah add --quiet "$container" "$tar" / >/dev/null
  run_buildah commit --quiet --rm "$container" localhost/sextant-base >/dev/null
  base=localhost/sextant-base
}
[ -n "$base" ] || make_base

arguments=(--isolation=chroot --format docker --file "$root/deploy/Dockerfile.$kind" --tag "$tag"
  --build-arg "BASE=$base" --build-arg "REVISION=$(git -C "$root" rev-parse HEAD 2>/dev/null || echo unknown)")
if [ -n "$binary" ]; then
  install -D "$binary" "$scratch/build/bin/sextant"
  strip "$scratch/build/bin/sextant"
  arguments+=(--build-context "build=$scratch/build")
fi
[ -z "$ccache_dir" ] || arguments+=(--volume "$(cd "$ccache_dir" && pwd):/var/cache/ccache")
say "building $tag from deploy/Dockerfile.$kind"
run_buildah bud "${arguments[@]}" --iidfile "$scratch/id" "$root" >&2 || die "buildah failed; its messages are above"
id=$(cat "$scratch/id")
[ -z "$output" ] || run_buildah push --quiet "$id" "docker-archive:$output:$tag" >&2
container=$(run_buildah from "$id")
mounted=$(run_buildah mount "$container")
size=$(du -sb --apparent-size "$mounted" | cut -f1)
[ -z "$sbom" ] || "$root/deploy/write-sbom.sh" "$mounted" "$tag" >"$sbom"
run_buildah rm "$container" >/dev/null
run_buildah rmi --prune >/dev/null   # what earlier builds left under no name
say "$tag takes $((size / 1000000)) MB"
echo "${id#sha256:} $size"
