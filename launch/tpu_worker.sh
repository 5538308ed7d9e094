#!/usr/bin/env bash
# One worker's part of launch/tpu_pod.sh, which copies this file along with the code and calls it over ssh.
#
#   launch/tpu_worker.sh install [COMMAND]    make an environment with JAX for TPUs, then run COMMAND
#   launch/tpu_worker.sh start ARGUMENT ...   start the training program, which outlives the connection
#   launch/tpu_worker.sh state                none, running, lost (the machine went down), "ended N" or "stopped N"
#   launch/tpu_worker.sh follow               print its output until it has ended
#   launch/tpu_worker.sh stop                 tell it to save and end
#
# What it needs to know it keeps in ~/plq-run: pid, log, status, stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
run=$HOME/plq-run
python=${PYTHON:-.venv/bin/python}

install() {  # the machine's own Python is too old
  python3 -m pip install --quiet --user uv
  [ -x .venv/bin/python ] || "$HOME/.local/bin/uv" venv --quiet --python 3.11 .venv
  "$HOME/.local/bin/uv" pip install --quiet --python .venv/bin/python '.[jpeg,remote]' 'jax[tpu]'
  [ $# -eq 0 ] || bash -c "$1"
}

state() {
  local how=ended
  [ ! -e "$run/stopped" ] || how=stopped
  if [ -e "$run/status" ]; then
    echo "$how $(cat "$run/status")"
  elif [ ! -e "$run/pid" ]; then
    echo none
  elif grep -qsa plq.main "/proc/$(cat "$run/pid")/cmdline"; then
    echo running
  else
    echo lost
  fi
}

start() {
  [ "$(state)" != running ] || return 0
  rm -rf "$run"
  mkdir "$run"
  setsid "$0" attend "$@" > "$run/log" 2>&1 < /dev/null &
  while [ ! -e "$run/pid" ]; do sleep 0.1; done
}

attend() {  # what `start` leaves running: the program, and who notes its status
  local status=0
  "$python" -m plq.main "$@" &
  echo $! > "$run/pid"
  wait $! || status=$?
  echo "$status" > "$run/status.new"
  mv "$run/status.new" "$run/status"
}

follow() {
  tail --pid="$(cat "$run/pid")" --lines=+1 --follow "$run/log"
}

stop() {
  [ "$(state)" = running ] || return 0
  touch "$run/stopped"
  kill -TERM "$(cat "$run/pid")" || true  # it may just have ended
}

"$@"
