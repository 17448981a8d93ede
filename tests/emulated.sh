#!/usr/bin/env bash
# Passes the tests of core and the unit tests of natlet as programs of a small machine, under user-mode emulation.
#
#   tests/emulated.sh [aarch64|armv7]...    default: both
#
# The emulator knows no netfilter sockets, so that what needs a kernel is for tests/arm.sh, and for tests/inherited.rs, where
# the emulated program is given its socket. Nor can an emulated test start an emulated program: the tests of the command line
# are left out, and tests/cross.rs compares the answers of each target's command with those of the one here.
# An emulated test takes many times as long: tests are optimised, and properties get a tenth of their cases.
#
# Exit status: 0 passed, 1 failed, 3 a tool is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- aarch64 armv7
export PROPTEST_CASES=40
optimised=(--config profile.dev.opt-level=2 --config profile.dev.package.natlet-core.opt-level=2)
for architecture; do
  case $architecture in
    aarch64) target=aarch64-unknown-linux-musl runner=qemu-aarch64-static ;;
    armv7) target=armv7-unknown-linux-musleabihf runner=qemu-arm-static ;;
    *) echo "error: no architecture $architecture; there are aarch64 and armv7" >&2; exit 1 ;;
  esac
  if ! command -v "$runner" >/dev/null; then
    echo "error: $runner is missing; install it: apt-get install qemu-user-static" >&2
    exit 3
  fi
  export "CARGO_TARGET_$(tr 'a-z-' 'A-Z_' <<<"$target")_RUNNER=$runner"
  echo "== $architecture"
  tests/cross.sh --cargo "$target" test "${optimised[@]}" --locked --quiet -p natlet-core --lib --tests
  tests/cross.sh --cargo "$target" test "${optimised[@]}" --locked --quiet -p natlet --lib
done
