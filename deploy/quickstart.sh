#!/usr/bin/env bash
# From a fresh Debian 12 to a model that answers: installs packages, builds `sextant`, obtains the default model, starts
# the server, waits until it is ready and streams one chat answer.
#   deploy/quickstart.sh                 start (again: rebuilds what changed and restarts)
#   deploy/quickstart.sh --port 9000     listen there (default: 8000, or the next free port)
#   deploy/quickstart.sh --foreground    stay attached; Ctrl-C stops the server
#   deploy/quickstart.sh --stop          stop the server that an earlier call started
# Run as root, or with the packages of deploy/install-deps.sh installed. The model, the log and the pid file are kept in
# the per-user cache (SEXTANT_CACHE, XDG_CACHE_HOME/sextant or ~/.cache/sextant).
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${SEXTANT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sextant}
pid_file=$cache/quickstart.pid
log_file=$cache/quickstart.log
# The CUDA backend where this machine has both a GPU and nvcc, else the CPU's.
preset=release
if command -v nvcc >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1; then preset=cuda; fi
binary=$root/build/$preset/server/sextant
ready_timeout_s=120

say() { echo "quickstart: $*" >&2; }
die() { say "$*"; exit 1; }
usage() { sed -n '2,9s/^# \{0,1\}//p' "$0"; }

port=
foreground=0
stop=0
while [ $# -gt 0 ]; do
  case "$1" in
    --port)
      [ $# -ge 2 ] || { say "--port needs a number"; exit 2; }
      port=$2
      shift
      ;;
    --port=*) port=${1#--port=} ;;
    --foreground) foreground=1 ;;
    --stop) stop=1 ;;
    -h|--help) usage; exit 0 ;;
    *) say "unknown argument '$1'"; usage >&2; exit 2 ;;
  esac
  shift
done
if [ -n "$port" ] && { ! [[ $port =~ ^[0-9]{1,5}$ ]] || [ "$port" -lt 1 ] || [ "$port" -gt 65535 ]; }; then
  say "--port takes a number from 1 to 65535, not '$port'"
  exit 2
fi

# The pid and port of the server an earlier call started, when that process is alive and is ours.
running_pid=
running_port=
find_running() {
  running_pid=
  [ -r "$pid_file" ] || return 1
  read -r running_pid running_port <"$pid_file" || return 1
  if [ -d /proc/self ]; then
    case "$(readlink "/proc/$running_pid/exe" 2>/dev/null)" in
      "$binary"|"$binary (deleted)") return 0 ;;
    esac
  elif kill -0 "$running_pid" 2>/dev/null; then  # a chroot without /proc: the number is all there is
    return 0
  fi
  running_pid=
  return 1
}

stop_server() {
  local waited=0
  kill -TERM "$running_pid" 2>/dev/null || true
  while kill -0 "$running_pid" 2>/dev/null; do
    [ "$waited" -lt 400 ] || die "process $running_pid has not ended after 40 s"
    sleep 0.1
    waited=$((waited + 1))
  done
  rm -f "$pid_file"
}

if [ "$stop" = 1 ]; then
  if find_running; then
    stop_server
    say "stopped"
  else
    say "nothing to stop"
  fi
  exit 0
fi

mkdir -p "$cache"

say "1/5 packages"
"$root/deploy/install-deps.sh" >&2

# One compiler per core and per 1.5 GiB of free memory: a build that swaps is slower than a narrow one.
jobs=$(nproc)
memory_jobs=$(awk '/^MemAvailable:/ {print int($2 / 1572864)}' /proc/meminfo 2>/dev/null || echo "$jobs")
[ "$memory_jobs" -ge 1 ] || memory_jobs=1
[ "$jobs" -le "$memory_jobs" ] || jobs=$memory_jobs
say "2/5 build with $jobs jobs"
cd "$root"
cmake --preset "$preset" -DSEXTANT_TESTS=OFF -DSEXTANT_BENCH=OFF >"$cache/quickstart-cmake.log" 2>&1 ||
  { cat "$cache/quickstart-cmake.log" >&2; die "cmake failed"; }
cmake --build --preset "$preset" --parallel "$jobs" --target sextant >&2

say "3/5 model"
model=$("$root/deploy/fetch-default-model.sh")

say "4/5 server"
if find_running; then
  if [ -z "$port" ] || [ "$port" = "$running_port" ]; then port=$running_port; fi
  say "replacing the running server (pid $running_pid)"
  stop_server
fi
# 0 when nothing listens on the port of the loopback interface.
port_is_free() {
  python3 -c 'import socket, sys
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("127.0.0.1", int(sys.argv[1])))' "$1" 2>/dev/null
}
if [ -z "$port" ]; then
  for port in $(seq 8000 8099); do
    port_is_free "$port" && break
  done
  port_is_free "$port" || die "ports 8000 to 8099 are all taken; choose one with --port"
elif ! port_is_free "$port"; then
  die "port $port is taken; choose another with --port"
fi
setsid "$binary" serve --model "$model" --port "$port" >"$log_file" 2>&1 </dev/null &
pid=$!
echo "$pid $port" >"$pid_file"
trap 'stop_on_failure' EXIT
stop_on_failure() {
  kill -TERM "$pid" 2>/dev/null || true
  rm -f "$pid_file"
}

url=http://127.0.0.1:$port
deadline=$((SECONDS + ready_timeout_s))
until curl --silent --fail --max-time 2 --output /dev/null "$url/ready"; do
  if ! kill -0 "$pid" 2>/dev/null; then
    cat "$log_file" >&2
    die "the server ended; its log is above"
  fi
  if [ "$SECONDS" -ge "$deadline" ]; then
    cat "$log_file" >&2
    die "the server was not ready within $ready_timeout_s s; its log is above"
  fi
  sleep 0.1
done
name=$(curl --silent --fail --max-time 10 "$url/v1/models" |
  python3 -c 'import json, sys; print(json.load(sys.stdin)["data"][0]["id"])')
say "ready at $url ($name)"

say "5/5 one chat answer, streamed"
question="What is the capital of France? Answer in one sentence."
echo
echo "  you:   $question"
printf '  model: '
curl --silent --show-error --no-buffer --fail-with-body --max-time 120 "$url/v1/chat/completions" \
  -H 'Content-Type: application/json' \
  -d "{\"model\": \"$name\", \"messages\": [{\"role\": \"user\", \"content\": \"$question\"}],
       \"stream\": true, \"temperature\": 0, \"max_tokens\": 64}" |
  python3 -c '
import json, sys
said = False
for line in sys.stdin:
    if not line.startswith("data: "):
        if line.strip(): sys.exit("unexpected answer: " + line)
        continue
    data = line[6:].strip()
    if data == "[DONE]":
        break
    for choice in json.loads(data)["choices"]:
        text = choice["delta"].get("content") or ""
        said = said or bool(text.strip())
        print(text, end="", flush=True)
else:
    sys.exit("the stream ended without [DONE]")
print()
if not said:
    sys.exit("the answer was empty")' || die "the chat answer failed"

cat <<EOT

The server listens at $url (OpenAI API at $url/v1).

  curl:
    curl $url/v1/chat/completions -H 'Content-Type: application/json' \\
      -d '{"model": "$name", "messages": [{"role": "user", "content": "Hello!"}]}'

  Python (pip install openai):
    from openai import OpenAI
    client = OpenAI(base_url="$url/v1", api_key="none")
    answer = client.chat.completions.create(
        model="$name", messages=[{"role": "user", "content": "Hello!"}])
    print(answer.choices[0].message.content)

  a chat in this terminal:
    $binary chat --url $url

  stop:
    $root/deploy/quickstart.sh --stop      (pid $pid; log: $log_file)
EOT

if [ "$foreground" = 1 ]; then
  trap 'stop_on_failure; wait "$pid" || true' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  echo
  say "in the foreground; Ctrl-C stops the server"
  wait "$pid"
else
  trap - EXIT
fi
