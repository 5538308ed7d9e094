#!/usr/bin/env bash
# Train on a Slurm cluster: write the job's script and submit it.
#
#   launch/slurm.sh [OPTION ...] --config FILE[:ARGUMENT] [--workdir DIR] [--config.SECTION.FIELD=VALUE ...]
#
# Everything from --config on goes to the training program as it is. The job runs in the present folder, one process
# per GPU; the folder of the run must be one that all nodes share.
#
#   --nodes N               (default: 1)
#   --gpus-per-node N       or TYPE:N; 0 for one process per node on its CPUs (default: 1)
#   --cpus-per-task N       CPUs of each process
#   --time TIME             limit of one stretch of the job: MINUTES, HH:MM:SS, DAYS-HH:MM:SS, ...
#   --partition NAME
#   --job-name NAME         (default: plq)
#   --sbatch OPTION         any other option of sbatch, as --sbatch=--account=lab; may be repeated
#   --grace SECONDS         how long before the limit the run is told to save (default: 180)
#   --requeues N            how often the job goes back to the queue when a signal ended it: at the limit, by a
#                           preemption, by the loss of a process (default: 20)
#   --dry-run               print the job's script
#
# $PYTHON is the interpreter on the nodes (default: python3).
#
# The status is sbatch's, or 2 when something given is wrong.
set -euo pipefail
# shellcheck source=launch/common.sh
source "${BASH_SOURCE[0]%/*}/common.sh"

dry_run='' nodes=1 gpus=1 cpus='' time='' partition='' name=plq grace=180 requeues=20 others=()
while [ $# -gt 0 ]; do
  case $1 in
    --config | --config=*) break ;;
    --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
    --dry-run) dry_run=yes; shift ;;
    --help | -h) usage; exit ;;
    --nodes) nodes=$(number "$1" "${2-}" 1); shift 2 ;;
    --gpus-per-node) gpus=$(matching "$1" "${2-}" '([A-Za-z0-9_.-]+:)?[0-9]+' 'N or TYPE:N'); shift 2 ;;
    --cpus-per-task) cpus=$(number "$1" "${2-}" 1); shift 2 ;;
    --time) time=$(matching "$1" "${2-}" '[0-9]+(-[0-9]+)?(:[0-9]+){0,2}' '90, 12:00:00, 2-00:00:00'); shift 2 ;;
    --partition) partition=$(matching "$1" "${2-}" '[A-Za-z0-9_.,-]+' 'letters, digits and . , _ -'); shift 2 ;;
    --job-name) name=$(matching "$1" "${2-}" '[A-Za-z0-9_.-]+' 'letters, digits and . _ -'); shift 2 ;;
    --sbatch) others+=("$(matching "$1" "${2-}" '--?[A-Za-z][[:print:]]*' 'one option of sbatch')"); shift 2 ;;
    --grace) grace=$(number "$1" "${2-}" 1); shift 2 ;;
    --requeues) requeues=$(number "$1" "${2-}" 0); shift 2 ;;
    *) die "$1: unknown option (see --help)" ;;
  esac
done
training_arguments "$@"
[ "$grace" -le 65535 ] || die "--grace $grace: allowed 1 to 65535"

header() {
  local tasks=${gpus##*:}
  printf '#SBATCH %s\n' --job-name="$name" --nodes="$nodes" --ntasks-per-node="$((tasks > 0 ? tasks : 1))"
  [ "$tasks" -eq 0 ] || printf '#SBATCH --gpus-per-node=%s\n' "$gpus"
  [ -z "$cpus" ] || printf '#SBATCH --cpus-per-task=%s\n' "$cpus"
  [ -z "$time" ] || printf '#SBATCH --time=%s\n' "$time"
  [ -z "$partition" ] || printf '#SBATCH --partition=%s\n' "$partition"
  printf '#SBATCH %s\n' --requeue --open-mode=append --signal="B:USR1@$grace" ${others[@]+"${others[@]}"}
}

job() {
  echo '#!/usr/bin/env bash'
  header
  cat << SCRIPT
# Written by launch/slurm.sh.
set -u

# Before the limit Slurm sends SIGUSR1, to this script alone: the processes are told to save here. What Slurm sends to
# preempt or to cancel a job, SIGTERM, reaches them without this script; and a second one would mean "at once".
trap 'scancel --signal=TERM "\$SLURM_JOB_ID"' USR1
trap : TERM

# When one process has ended, the others have $grace seconds to end as well.
srun --kill-on-bad-exit=0 --wait=$grace --label${cpus:+ --cpus-per-task=$cpus} \\
  $(quoted "${PYTHON:-python3}" -m plq.main "$@") &
while kill -0 \$! 2> /dev/null; do wait \$!; done  # a signal ends a wait early
wait \$!
status=\$?

# Ended by a signal: the run can go on. "Incomplete" leaves alone a job that somebody cancelled.
if [ "\$status" -ge 128 ] && [ "\${SLURM_RESTART_COUNT:-0}" -lt $requeues ]; then
  echo "status \$status, back to the queue" >&2
  scontrol requeue Incomplete "\$SLURM_JOB_ID"
fi
exit "\$status"
SCRIPT
}

if [ -n "$dry_run" ]; then
  job "$@"
  exit
fi
installed sbatch
job "$@" | sbatch
