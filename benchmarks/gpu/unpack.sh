#!/usr/bin/env bash
# On the card's machine: `unpack.sh keep DIR` keeps one carried part, `unpack.sh open NAME...` unpacks what they make.
set -euo pipefail
place=${CARD:-/tmp/card}
mkdir -p "$place/parts"
case "$1" in
  keep) cp "$2"/* "$place/parts/" ;;
  open)
    shift
    running=()
    for name in "$@"; do
      cat "$place/parts/$name".tar.xz.* | if command -v xz >/dev/null; then xz -d -T0; else python3 -c 'import lzma,shutil,sys;shutil.copyfileobj(lzma.open(sys.stdin.buffer),sys.stdout.buffer,1<<22)'; fi | tar -C "$place" -xf - &
      running+=($!)
    done
    for id in "${running[@]}"; do wait "$id" || exit 1; done ;;  # a bare `wait` forgets how they ended
esac
