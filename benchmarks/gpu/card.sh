#!/usr/bin/env bash
# The GPU card: `card.sh OUT [PART...]`, parts correctness, speed, evidence (all three unless named), each with a time limit,
# each leaving its files in OUT whatever becomes of the others. On the lent machine (docs/gpu.md) all comes from /tmp/card;
# elsewhere run it from the repository with this environment's python first on the PATH. PILOT_ONLY=1 is a rehearsal.
set -uo pipefail
out=$(mkdir -p "$1" && cd "$1" && pwd); shift
parts=${*:-correctness speed evidence}
seconds=${EVIDENCE_SECONDS:-330}
here=$(cd "$(dirname "$0")/../.." && pwd)
export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
corpus=${CORPUS:-../shared/data/corpus/wide} items=${ITEMS:-../shared/data/benchmarks} work=${WORK:-work}
if [ -d /tmp/card/site ]; then
  here=/tmp/card/code corpus=/tmp/card/corpus items=/tmp/card/items work=/tmp/card/work
  export PYTHONPATH=/tmp/card/site REPRO_CACHE=/tmp/card/cache
fi
cd "$here" || exit 1
commit=$(git rev-parse HEAD 2>/dev/null || python3 -c 'import json; print(json.load(open("CODE.json"))["commit"])')
device=${DEVICE:-cuda}
for part in $parts; do
  case $part in
    correctness) timeout -k 5 105 python3 -m benchmarks.gpu.correctness --device "$device" --out "$out" --commit "$commit" --seconds 60 ${TINY:+--tiny} ;;
    speed) timeout -k 5 165 python3 -m benchmarks.gpu.speed --device "$device" --out "$out" --commit "$commit" --seconds 120 ${TINY:+--tiny} ;;
    evidence) timeout -k 5 $((seconds + 30)) python3 -m benchmarks.gpu.evidence --out "$out/evidence" --seconds "$seconds" \
        scale=curve corpus=wide corpus.folder="$corpus" items=folder items.folder="$items" work="$work" \
        tracking.wandb=disabled train.micro_batch=4 device="$device" ${SETTINGS:-} ;;
  esac
  echo "$part: exit $?"
done
# Eight files of 15 MB at most come back from the lent machine.
if [ -d "$out/evidence" ]; then
  (cd "$out/evidence" && tar -czf "$out/logs.tar.gz" ./*.log && tar -cf - ./*.tar.zst | split -b 15000000 -d - "$out/evidence.tar.") && rm -r "$out/evidence"
fi
