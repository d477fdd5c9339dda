#!/usr/bin/env bash
# The GPU card: `card.sh OUT [PART...]`, parts correctness, speed, evidence (all three unless named), each with a time limit,
# each leaving its files in OUT whatever becomes of the others; the exit code is the worst of theirs. On the lent machine
# (docs/gpu.md) all comes from /tmp/card; elsewhere run it from the repository with this environment's python first on the PATH.
set -uo pipefail
out=$(mkdir -p "$1" && cd "$1" && pwd) || exit 1; shift
parts=${*:-correctness speed evidence}
seconds=${EVIDENCE_SECONDS:-290}  # a command on the lent machine ends after 600 s: the limits below add to 575
place=${CARD:-/tmp/card}
here=$(cd "$(dirname "$0")/../.." && pwd)
export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
corpus=${CORPUS:-../shared/data/corpus/wide} items=${ITEMS:-../shared/data/benchmarks} work=${WORK:-work}
if [ -d "$place/site" ]; then
  here=$place/code corpus=$place/corpus items=$place/items work=$place/work
  export PYTHONPATH=$place/site REPRO_CACHE=$place/cache
fi
cd "$here" || exit 1
[ ! -d "$place/site" ] || python3 -m benchmarks.gpu.digests "$place" || exit 1
commit=$(git rev-parse HEAD 2>/dev/null || python3 -c 'import json; print(json.load(open("CODE.json"))["commit"])')
device=${DEVICE:-cuda} worst=0
for part in $parts; do
  case $part in
    correctness) timeout -k 5 105 python3 -m benchmarks.gpu.correctness --device "$device" --out "$out" --commit "$commit" --seconds 60 ${TINY:+--tiny} ;;
    speed) timeout -k 5 165 python3 -m benchmarks.gpu.speed --device "$device" --out "$out" --commit "$commit" --seconds 120 ${TINY:+--tiny} ;;
    evidence) timeout -k 5 $((seconds + 15)) python3 -m benchmarks.gpu.evidence --out "$out" --own "$work/evidence" --seconds "$seconds" \
        scale=curve corpus=wide corpus.folder="$corpus" items=folder items.folder="$items" work="$work" \
        tracking.wandb=disabled train.micro_batch=4 device="$device" ${SETTINGS:-} ;;
    *) echo "no part $part; there are correctness, speed, evidence" >&2; false ;;
  esac
  code=$?
  echo "$part: exit $code"
  worst=$((code > worst ? code : worst))
done
exit "$worst"
