#!/usr/bin/env bash
# The ablations of one config, each a comparison of its own; trainings that several of them need are done once.
#
#   launch/ablations.sh configs/digits_w1a2.py runs/ablations [--seeds 3] [--config.FIELD=VALUE ...]
#
# merge       how the branch joins the low-precision output
# decay       along which curve f falls
# length      the share of the run after which f is 0
# norm        the branch with and without its own batch norm
# order       f of all layers at once, or of one layer after another, from the front or from the back
# statistics  batch statistics averaged anew over 50 batches, after the branch has long gone
#
# Each writes runs/ablations/NAME/report.html. Given again it goes on; a training that failed does not stop the others.
set -u
if [ "$#" -lt 2 ]; then
  sed -n '2,14s/^# \{0,1\}//p' "$0"
  exit 2
fi
config=$1 out=$2
shift 2

ablation() {
  local name=$1
  shift
  echo "ablations: $name" >&2
  "${PYTHON:-python3}" -m plq compare --config "$config" --cells "$out" --out "$out/$name" "$@"
  local status=$?
  [ "$status" -le 1 ] || exit "$status"
  [ "$status" -eq 0 ] || failed=1
}

failed=0
ablation merge --vary expansion.merge=add,subtract,concat "$@"
ablation decay --vary factor.name=cosine,staircase,linear "$@"
ablation length --vary factor.end=0.05,0.1,0.25,0.5,1.0 "$@"
ablation norm --vary expansion.norm=True,False "$@"
ablation order --vary factor.order=together,front,back "$@"
ablation statistics --reestimate 50 "$@"
exit "$failed"
