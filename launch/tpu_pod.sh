#!/usr/bin/env bash
# Train on a TPU pod slice of Google Cloud.
#
#   launch/tpu_pod.sh run --name NAME --zone ZONE --type TYPE [OPTION ...] --config FILE[:ARGUMENT] --workdir DIR ...
#   launch/tpu_pod.sh logs | status | stop | delete --name NAME --zone ZONE [OPTION ...]
#
#   run      make the slice or take the one that is there, copy this folder to all workers, install, train, print
#            worker 0's output; when the slice was preempted make another and go on; until the run is done
#   logs     print the output of a worker until the run has ended
#   status   the state of the slice and of the run
#   stop     tell the run to save and end
#   delete   delete the slice
#
# Everything from --config on goes to the training program as it is. --workdir must be an address (gs://BUCKET/NAME)
# or an absolute path on a disk that all workers mount and that outlives the slice; --setup is the place to mount it.
# The run does not need this script: stop it and call it again to look on.
#
#   --project PROJECT      (default: gcloud's)
#   --type TYPE            as v5litepod-8
#   --version VERSION      software of the workers (default: the one that TYPE needs for JAX)
#   --spot                 cheaper, and may be preempted
#   --preemptible          the same, for 24 hours at most; not with --queued
#   --queued               wait in the queue where there is no room (a queued resource)
#   --setup COMMAND        run by each worker after the installation
#   --restarts N           how often a run that broke off goes on; preemptions do not count (default: 20)
#   --delete-when-done     delete the slice when the run has ended
#   --worker N             for logs: which (default: 0)
#   --dry-run              print what would be run where nothing is there yet
#
# $POLL is the time between two looks at a slice in the making, in seconds (default: 30).
#
# The status is the training program's (0 done, 2 something given is wrong), or that of the call of gcloud that failed.
set -euo pipefail
# shellcheck source=launch/common.sh
source "${BASH_SOURCE[0]%/*}/common.sh"
root=$(cd "${BASH_SOURCE[0]%/*}/.." && pwd)

case ${1-} in
  run | logs | status | stop | delete) action=$1; shift ;;
  --help | -h) usage; exit ;;
  *) die "${1:-(nothing)}: allowed run, logs, status, stop, delete (see --help)" ;;
esac

dry_run='' name='' zone='' project='' type='' version='' kind='' queued='' setup='' restarts=20 delete='' worker=0
while [ $# -gt 0 ]; do
  case $1 in
    --config | --config=*) break ;;
    --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
    --dry-run) dry_run=yes; shift ;;
    --help | -h) usage; exit ;;
    --spot | --preemptible) kind=$1; shift ;;
    --queued) queued=yes; shift ;;
    --delete-when-done) delete=yes; shift ;;
    --name) name=$(matching "$1" "${2-}" '[a-z]([a-z0-9-]{0,60}[a-z0-9])?' 'lower-case letters, digits, -'); shift 2 ;;
    --zone) zone=$(matching "$1" "${2-}" '[a-z]+-[a-z]+[0-9]+-[a-z]' 'a zone, as us-west4-a'); shift 2 ;;
    --project) project=$(matching "$1" "${2-}" '[a-z][a-z0-9:.-]+' 'the name of a project'); shift 2 ;;
    --type) type=$(matching "$1" "${2-}" 'v[0-9]+[a-z]*-[0-9]+' 'a type of slice, as v5litepod-8'); shift 2 ;;
    --version) version=$(matching "$1" "${2-}" '[a-z0-9.-]+' 'a software version, as v2-alpha-tpuv5-lite'); shift 2 ;;
    --setup) setup=${2-}; shift 2 ;;
    --restarts) restarts=$(number "$1" "${2-}" 0); shift 2 ;;
    --worker) worker=$(number "$1" "${2-}" 0); shift 2 ;;
    *) die "$1: unknown option (see --help)" ;;
  esac
done
[ -n "$name" ] || die "--name NAME: missing (see --help)"
[ -n "$zone" ] || die "--zone ZONE: missing (see --help)"
if [ "$action" = run ]; then
  training_arguments "$@"
  [ -f "$root/$config_file" ] || die "--config $config_file: allowed a file below $root, named from there"
  case $(workdir "$@") in
    /* | gs://?* | s3://?*) ;;
    *) die "--workdir $(workdir "$@"): allowed an absolute path, on a disk of all workers, or gs://BUCKET/NAME" ;;
  esac
  [ -n "$type" ] || die "--type TYPE: missing (see --help)"
  [ -z "$queued" ] || [ "$kind" != --preemptible ] || die "--preemptible: not with --queued; use --spot"
else
  [ $# -eq 0 ] || die "$1: goes with run only"
fi
[ -n "$version" ] || case $type in
  v5litepod-*) version=v2-alpha-tpuv5-lite ;;
  v5p-*) version=v2-alpha-tpuv5 ;;
  v6e-*) version=v2-alpha-tpuv6e ;;
  v[234]-*) version=tpu-ubuntu2204-base ;;
esac
[ "$action" != run ] || [ -n "$version" ] || die "--version VERSION: missing; there is no usual one for $type"
where=(--zone="$zone" ${project:+--project="$project"})
left_out=(./.git ./.venv ./runs __pycache__ .pytest_cache .mypy_cache .ruff_cache)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

call() {  # gcloud's commands for TPUs, or what they would be
  if [ -n "$dry_run" ]; then
    quoted gcloud compute tpus "$@" "${where[@]}"
    echo
  else
    gcloud compute tpus "$@" "${where[@]}"
  fi
}

look() {  # COLLECTION FIELD: the state of what has our name in it, or nothing
  call "$1" list --filter="name~/$name\$" --format="value($2)"
}

on() {  # WORKER COMMAND: a line of shell there
  call tpu-vm ssh "$name" --worker="$1" --command="$2"
}

create() {
  if [ -n "$queued" ]; then
    call queued-resources create "$name" --node-id="$name" --accelerator-type="$type" --runtime-version="$version" \
      ${kind:+"$kind"}
  else
    call tpu-vm create "$name" --accelerator-type="$type" --version="$version" ${kind:+"$kind"}
  fi
}

remove() {
  if [ -n "$queued" ]; then
    call queued-resources delete "$name" --force --quiet
  else
    call tpu-vm delete "$name" --quiet
  fi
}

up() {  # until the slice is there
  local slice entry seen=''
  while true; do
    slice=$(look tpu-vm state)
    [ "$slice" != READY ] || return 0
    entry=''
    [ -z "$queued" ] || entry=$(look queued-resources state.state)
    [ "$seen" = "$slice/$entry" ] || say "$name: ${slice:-not there}${entry:+, in the queue $entry}"
    seen=$slice/$entry
    case $slice/$entry in
      /) create ;;
      PREEMPTED/* | TERMINATED/* | */FAILED | */SUSPENDED) remove ;;
      STOPPED/*) call tpu-vm start "$name" ;;
      *) sleep "${POLL:-30}" ;;
    esac
  done
}

prepare() {
  local archive=$scratch/plq.tar.gz
  [ -n "$dry_run" ] || tar -czf "$archive" -C "$root" "${left_out[@]/#/--exclude=}" . || return
  call tpu-vm scp "$archive" "$name:plq.tar.gz" --worker=all &&
    on all "mkdir -p plq && tar -xzf plq.tar.gz -C plq && plq/launch/tpu_worker.sh install${setup:+ $(quoted "$setup")}"
}

start() {
  on all "plq/launch/tpu_worker.sh start $(quoted "$@")"
}

follow() {
  on "$worker" "plq/launch/tpu_worker.sh follow"
}

state() {  # of the run, on worker 0; nothing where there is none yet
  on 0 "[ ! -x plq/launch/tpu_worker.sh ] || plq/launch/tpu_worker.sh state"
}

leave() {  # STATUS
  [ -z "$delete" ] || remove
  exit "$1"
}

launch() {  # install and start, unless the run is going on
  local seen
  seen=$(state) || return
  if [ "$seen" = running ]; then
    say "$name: the run is going on"
  else
    prepare && start "$@"
  fi
}

train() {
  local begun='' left=$restarts seen status
  while true; do
    up
    if [ -z "$begun" ]; then
      launch "$@"
      begun=yes
    else
      launch "$@" || true
    fi
    follow || true
    if [ "$(look tpu-vm state)" != READY ]; then
      say "$name: preempted"
      continue
    fi
    seen=$(state) || seen=unreachable
    case $seen in
      'ended 0' | 'ended 2' | stopped*) leave "${seen#* }" ;;
      ended*) status=${seen#* } ;;
      *) status=1 ;;
    esac
    if [ "$seen" != running ]; then
      say "$name: $seen"
      [ "$left" -gt 0 ] || leave "$status"
      left=$((left - 1))
    fi
    sleep "${POLL:-30}"
  done
}

[ -n "$dry_run" ] || installed gcloud
trap 'say "what was started goes on (see status, stop, delete)"; exit 130' INT
case $action-$dry_run in
  run-yes) create && prepare && start "$@" && follow ;;
  run-) train "$@" ;;
  logs-*) follow ;;
  status-*) look tpu-vm state && state ;;
  stop-*) on all "plq/launch/tpu_worker.sh stop" ;;
  delete-*) remove ;;
esac
