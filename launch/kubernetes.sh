#!/usr/bin/env bash
# Train on a Kubernetes cluster with the JobSet controller, on TPU or GPU nodes (labels as GKE gives them).
#
#   launch/kubernetes.sh run --name NAME --image IMAGE --claim CLAIM (--tpu TYPE --topology AxB | --gpu TYPE)
#                            [OPTION ...] --config FILE[:ARGUMENT] --workdir /runs/DIR ...
#                            or, without --claim, --workdir gs://BUCKET/NAME
#   launch/kubernetes.sh logs | status | delete --name NAME [--namespace NAMESPACE]
#
#   run      fill in launch/jobset.yaml and hand it to kubectl; pods that fail or are preempted start anew
#   logs     print host 0's output as it comes
#   status   the JobSet and its pods
#   delete   delete the JobSet; its pods are told to save and end
#
# Everything from --config on goes to the training program as it is. FILE is a path in the image, looked up here too.
#
#   --namespace NAMESPACE      (default: kubectl's)
#   --image IMAGE              has plq, its configs, and JAX for the accelerator
#   --claim CLAIM              volume that all hosts can write to, mounted at /runs
#   --data CLAIM               volume with the prepared data sets, mounted at /data as $TFDS_DATA_DIR
#   --tpu TYPE --topology AxB  as tpu-v5-lite-podslice and 8x8
#   --gpu TYPE                 as nvidia-h100-80gb
#   --chips N                  TPU chips or GPUs of one host (default: 4 for a TPU, 8 for a GPU)
#   --hosts N                  with --gpu (default: 1); with --tpu it follows from the topology
#   --spot                     on spot nodes
#   --restarts N               (default: 100)
#   --grace SECONDS            time to save (default: 120)
#   --dry-run                  print the manifest, or the command
#
# The status is kubectl's, or 2 when something given is wrong.
set -euo pipefail
shopt -u patsub_replacement 2> /dev/null || true  # newer shells give "&" a meaning in ${line//@X@/$value}
# shellcheck source=launch/common.sh
source "${BASH_SOURCE[0]%/*}/common.sh"

case ${1-} in
  run | logs | status | delete) action=$1; shift ;;
  --help | -h) usage; exit ;;
  *) die "${1:-(nothing)}: allowed run, logs, status, delete (see --help)" ;;
esac

label='[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?'
words='lower-case letters, digits, . and -'
dry_run='' name='' namespace='' image='' claim='' data='' tpu='' topology='' gpu='' chips='' hosts='' spot=''
restarts=100 grace=120
while [ $# -gt 0 ]; do
  case $1 in
    --config | --config=*) break ;;
    --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
    --dry-run) dry_run=yes; shift ;;
    --help | -h) usage; exit ;;
    --spot) spot=yes; shift ;;
    --name) name=$(matching "$1" "${2-}" '[a-z]([a-z0-9-]{0,40}[a-z0-9])?' 'lower-case letters, digits, -'); shift 2 ;;
    --namespace) namespace=$(matching "$1" "${2-}" "$label" "$words"); shift 2 ;;
    --image) image=$(matching "$1" "${2-}" '[A-Za-z0-9][A-Za-z0-9_.:/@-]*' 'the name of an image'); shift 2 ;;
    --claim) claim=$(matching "$1" "${2-}" "$label" "$words"); shift 2 ;;
    --data) data=$(matching "$1" "${2-}" "$label" "$words"); shift 2 ;;
    --tpu) tpu=$(matching "$1" "${2-}" "$label" "$words"); shift 2 ;;
    --topology) topology=$(matching "$1" "${2-}" '[0-9]{1,3}(x[0-9]{1,3}){1,2}' 'AxB or AxBxC'); shift 2 ;;
    --gpu) gpu=$(matching "$1" "${2-}" "$label" "$words"); shift 2 ;;
    --chips) chips=$(number "$1" "${2-}" 1); shift 2 ;;
    --hosts) hosts=$(number "$1" "${2-}" 1); shift 2 ;;
    --restarts) restarts=$(number "$1" "${2-}" 0); shift 2 ;;
    --grace) grace=$(number "$1" "${2-}" 1); shift 2 ;;
    *) die "$1: unknown option (see --help)" ;;
  esac
done

check() {  # what a run needs; sets the number of hosts and of chips on each
  training_arguments "$@"
  [ -n "$image" ] || die "--image IMAGE: missing (see --help)"
  case $(workdir "$@") in
    gs://?* | s3://?*) [ -z "$claim" ] || die "--claim $claim: has no use, --workdir $(workdir "$@") is an address" ;;
    /runs/?*) [ -n "$claim" ] || die "--claim CLAIM: missing; without a volume a restarted run begins anew" ;;
    *) die "--workdir $(workdir "$@"): allowed a folder below /runs, where --claim is, or gs://BUCKET/NAME" ;;
  esac
  case $tpu/$gpu in / | ?*/?*) die "--tpu or --gpu: give one of them (see --help)" ;; esac
  if [ -n "$tpu" ]; then
    [ -n "$topology" ] || die "--topology AxB: missing; goes with --tpu"
    [ -z "$hosts" ] || die "--hosts $hosts: follows from --topology, leave it out"
    local all=$((${topology//x/*}))
    chips=${chips:-$((all < 4 ? all : 4))}
    [ $((all % chips)) -eq 0 ] || die "--chips $chips: does not divide the $all chips of $topology"
    hosts=$((all / chips))
  else
    [ -z "$topology" ] || die "--topology $topology: goes with --tpu"
    chips=${chips:-8} hosts=${hosts:-1}
  fi
}

strings() {  # the arguments as a list in JSON, which is YAML too; $$ is Kubernetes' way to write a $
  local word list=''
  for word in "$@"; do
    word=${word//\\/\\\\} word=${word//\"/\\\"} word=${word//$'\n'/\\n} word=${word//$'\t'/\\t}
    list+=", \"$word\""
  done
  printf '[%s]' "${list:2}"
}

arguments() {
  local place=()  # on several TPU hosts the environment says it
  if [ "$hosts" -eq 1 ]; then
    place=(--num_processes 1)
  elif [ -n "$gpu" ]; then
    place=(--coordinator "$name-hosts-0-0.$name:8476" --num_processes "$hosts" --process_id "\$(JOB_COMPLETION_INDEX)")
  fi
  strings "${@//\$/\$\$}" ${place[@]+"${place[@]}"}
}

holds() {  # what the line ends in, if it ends in "if X"
  case $1 in
    *'# if tpu') [ -n "$tpu" ] ;;
    *'# if gpu') [ -n "$gpu" ] ;;
    *'# if spot') [ -n "$spot" ] ;;
    *'# if data') [ -n "$data" ] ;;
    *'# if claim') [ -n "$claim" ] ;;
    *'# if volumes') [ -n "$claim$data" ] ;;
  esac
}

manifest() {
  local line
  while IFS= read -r line; do
    holds "$line" || continue
    line=${line%  # if *}
    line=${line//@NAME@/$name} line=${line//@RESTARTS@/$restarts} line=${line//@HOSTS@/$hosts}
    line=${line//@GRACE@/$grace} line=${line//@KIND@/$tpu$gpu} line=${line//@TOPOLOGY@/$topology}
    line=${line//@RESOURCE@/$([ -n "$tpu" ] && echo google.com/tpu || echo nvidia.com/gpu)}
    line=${line//@CHIPS@/$chips} line=${line//@CLAIM@/$claim} line=${line//@DATA@/$data} line=${line//@IMAGE@/$image}
    printf '%s\n' "${line//@ARGUMENTS@/$(arguments "$@")}"
  done < <(tail -n +3 "${BASH_SOURCE[0]%/*}/jobset.yaml")
}

kube() {
  local command=(kubectl ${namespace:+--namespace="$namespace"} "$@")
  if [ -n "$dry_run" ]; then
    quoted "${command[@]}"
    echo
  else
    "${command[@]}"
  fi
}

[ -n "$name" ] || die "--name NAME: missing (see --help)"
[ "$action" = run ] || [ $# -eq 0 ] || die "$1: goes with run only"
[ "$action" != run ] || check "$@"
[ -n "$dry_run" ] || installed kubectl
set_of_pods=jobset.sigs.k8s.io/jobset-name=$name
case $action-$dry_run in
  run-yes) manifest "$@" ;;
  run-) manifest "$@" | kube create --filename=- ;;
  logs-*) kube logs --follow --tail=-1 --selector="$set_of_pods,batch.kubernetes.io/job-completion-index=0" ;;
  status-*)
    kube get jobset "$name"
    kube get pods --selector="$set_of_pods" --output=wide
    ;;
  delete-*) kube delete jobset "$name" ;;
esac
