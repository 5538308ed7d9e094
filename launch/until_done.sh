#!/usr/bin/env bash
# Train on one machine that may be preempted: start again until the run is done.
#
#   launch/until_done.sh --config configs/svhnnet.py:cifar10 --workdir runs/cifar10 [--config.FIELD=VALUE ...]
#
# A run that was stopped by a signal (status 128 or more) goes on from its newest checkpoint. Status 0 (done),
# 2 (something given is wrong) and Ctrl-C (130) end the script with that status.
set -u
while true; do
  "${PYTHON:-python3}" -m plq.main "$@"
  status=$?
  if [ "$status" -lt 128 ] || [ "$status" -eq 130 ]; then
    exit "$status"
  fi
  echo "until_done: status $status, starting again" >&2
  sleep "${PAUSE:-5}"
done
