#!/usr/bin/env bash
# Train on this machine.
#
#   launch/local.sh [OPTION ...] --config FILE[:ARGUMENT] [--workdir DIR] [--config.SECTION.FIELD=VALUE ...]
#
# Everything from --config on goes to the training program as it is. One process uses all accelerators it finds.
#
#   --until-done           start again when a signal ended the run (a preempted machine), until it is done
#   --processes N          N processes that talk over 127.0.0.1, on CPUs unless $JAX_PLATFORMS says otherwise:
#                          a run over several hosts, tried on one; each line of output begins with its process
#   --virtual-devices N    make N devices of each process's CPU
#   --grace SECONDS        time to save, before what is still running is killed (default: 60)
#   --dry-run              print what would be run
#
# $PYTHON is the interpreter (default: python3), $PAUSE the seconds before a new start (default: 5).
#
# The status is the training program's: 0 done, 2 something given is wrong, 128 + n ended by signal n; of several
# processes it is that of the first that failed, and the others are then told to end.
set -euo pipefail
# shellcheck source=launch/common.sh
source "${BASH_SOURCE[0]%/*}/common.sh"

until_done='' dry_run='' processes=1 devices='' grace=60
while [ $# -gt 0 ]; do
  case $1 in
    --config | --config=*) break ;;
    --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
    --until-done) until_done=yes; shift ;;
    --dry-run) dry_run=yes; shift ;;
    --help | -h) usage; exit ;;
    --processes) processes=$(number "$1" "${2-}" 1); shift 2 ;;
    --virtual-devices) devices=$(number "$1" "${2-}" 1); shift 2 ;;
    --grace) grace=$(number "$1" "${2-}" 0); shift 2 ;;
    *) die "$1: unknown option (see --help)" ;;
  esac
done
training_arguments "$@"

command=("${PYTHON:-python3}" -m plq.main "$@")
if [ -n "$devices" ]; then  # XLA on CPUs can deadlock where virtual devices outnumber its threads
  flags="${XLA_FLAGS:+$XLA_FLAGS }--xla_force_host_platform_device_count=$devices"
  command=(env JAX_PLATFORMS=cpu XLA_FLAGS="$flags" PJRT_NPROC="${PJRT_NPROC:-16}" "${command[@]}")
elif [ "$processes" -gt 1 ]; then
  command=(env JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}" "${command[@]}")
fi

free_port() {
  local port
  while port=$((20000 + RANDOM % 12000)); (: < "/dev/tcp/127.0.0.1/$port") 2> /dev/null; do :; done
  printf '%d' "$port"
}

process() {  # INDEX PORT: sets `process` to the command of one of them
  process=("${command[@]}")
  [ "$processes" -eq 1 ] ||
    process+=(--coordinator "127.0.0.1:$2" --num_processes "$processes" --process_id "$1")
}

numbered() {  # INDEX: each line after its number; lives as long as there are lines
  trap '' TERM INT
  local line
  while IFS= read -r line || [ -n "$line" ]; do printf '[%d] %s\n' "$1" "$line"; done
}

one() {  # INDEX PORT
  trap : TERM INT  # what it runs is told, and this waits for that
  process "$1" "$2"
  if [ "$processes" -eq 1 ]; then
    "${process[@]}"
  else
    "${process[@]}" 2>&1 | numbered "$1"
  fi
}

tell() {  # SIGNAL: to all that still run, each in a process group of its own, so that each hears it once
  local pid
  for pid in ${running[@]+"${running[@]}"}; do kill "-$1" -- "-$pid" 2> /dev/null || true; done
}

watch() {  # until none runs; sets `failed` to the status of the first that failed, and tells the others to end
  local pid left status told='' deadline=0
  while [ ${#running[@]} -gt 0 ]; do
    left=()
    for pid in "${running[@]}"; do
      if kill -0 "$pid" 2> /dev/null; then
        left+=("$pid")
        continue
      fi
      status=0
      wait "$pid" 2> /dev/null || status=$?
      if [ "$status" -ne 0 ] && [ "$failed" -eq 0 ]; then
        failed=$status
        [ "$processes" -eq 1 ] || [ -n "$told" ] || say "a process ended with status $status"
      fi
    done
    running=(${left[@]+"${left[@]}"})
    if [ -z "$told" ] && { [ -n "$stopped" ] || [ "$failed" -ne 0 ]; }; then
      tell TERM
      told=yes deadline=$((SECONDS + grace))
    elif [ -n "$told" ] && [ "$SECONDS" -ge "$deadline" ]; then
      say "still running $grace s after it was told to end, killed"
      tell KILL
      deadline=$((SECONDS + 5))
    fi
    [ ${#running[@]} -eq 0 ] || sleep 0.1 || true
  done
}

run() {  # all processes, once; sets `failed`
  local port index
  port=$(free_port)
  running=() failed=0
  set -m
  for ((index = 0; index < processes; index++)); do
    one "$index" "$port" < /dev/null &
    running+=("$!")
  done
  set +m
  watch
}

if [ -n "$dry_run" ]; then
  port=$(free_port)
  for ((index = 0; index < processes; index++)); do
    process "$index" "$port"
    quoted "${process[@]}"
    echo
  done
  exit
fi
installed "${command[0]}"
[ "$processes" -gt 1 ] || [ -n "$until_done" ] || exec "${command[@]}"

stopped=''  # the status that the signal sent to this script stands for
trap 'stopped=143' TERM
trap 'stopped=130' INT
trap 'stopped=129' HUP
while true; do
  run
  if [ -n "$stopped" ] && [ "$failed" -ne 0 ]; then
    exit "$stopped"
  elif [ -z "$until_done" ] || [ "$failed" -lt 128 ] || [ "$failed" -eq 130 ]; then
    exit "$failed"
  fi
  say "status $failed, starting again"
  sleep "${PAUSE:-5}" || true
  [ -z "$stopped" ] || exit "$stopped"
done
