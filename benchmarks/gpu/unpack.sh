#!/usr/bin/env bash
# On the card's machine: `unpack.sh keep DIR` keeps one carried part, `unpack.sh open NAME...` unpacks what they make.
set -euo pipefail
mkdir -p /tmp/parts /tmp/card
case "$1" in
  keep) cp "$2"/* /tmp/parts/ ;;
  open)
    shift
    for name in "$@"; do
      cat /tmp/parts/"$name".tar.xz.* | if command -v xz >/dev/null; then xz -d -T0; else python3 -c 'import lzma,shutil,sys;shutil.copyfileobj(lzma.open(sys.stdin.buffer),sys.stdout.buffer,1<<22)'; fi | tar -C /tmp/card -xf - &
    done
    wait ;;
esac
