#!/usr/bin/env bash
# Prints how many instructions each operation takes: runs every example whose name ends in _instructions under callgrind, once for
# each of its operations (src/instructions.rs), and divides. Arguments, if any, are parts of operations' names that are wanted.
set -euo pipefail
cd "$(dirname "$0")"
command -v valgrind >/dev/null || { echo "error: no valgrind; apt-get install valgrind" >&2; exit 3; }

# callgrind needs the symbols that release builds leave out
export CARGO_PROFILE_BENCH_STRIP=none
target=$(cargo metadata --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
log=$(mktemp)
trap 'rm -f "$log"' EXIT
printf '%-56s %12s\n' operation instructions
for source in examples/*_instructions.rs; do
  example=$(basename "$source" .rs)
  cargo build --quiet --profile bench --example "$example"
  "$target/release/examples/$example" | while IFS= read -r operation; do
    wanted=$([ $# -eq 0 ] && echo yes || echo no)
    for part in "$@"; do [[ $operation == *"$part"* ]] && wanted=yes; done
    [ "$wanted" = yes ] || continue
    times=$(valgrind --tool=callgrind --callgrind-out-file="${CALLGRIND_OUT:-/dev/null}" --toggle-collect='*::instructions::counted*' \
      "$target/release/examples/$example" "$operation" 2>"$log") || { cat "$log" >&2; exit 1; }
    total=$(sed -n 's/.*Collected : \([0-9]*\).*/\1/p' "$log")
    printf '%-56s %12s\n' "$operation" "$(awk "BEGIN { printf \"%.1f\", $total / $times }")"
  done
done
