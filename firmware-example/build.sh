#!/usr/bin/env bash
# Builds the firmware and prints the folder that the images are in. Downloads no toolchain: the default one where it has the target,
# else Debian's (packages rustc-web cargo-web rust-web-src lld), which builds core from its own sources.
set -euo pipefail
cd "$(dirname "$0")"
target=thumbv7em-none-eabihf
if [ -d "$(rustc --print target-libdir --target "$target")" ]; then
  cargo=(cargo)
  out="$PWD/target"
else
  for tool in /usr/bin/rustc /usr/bin/cargo; do
    [ -x "$tool" ] || { echo "error: no $tool; add the target (rustup target add $target) or install Debian's rustc-web cargo-web rust-web-src" >&2; exit 3; }
  done
  [ -d /usr/lib/rustlib/src/rust/library ] || { echo "error: no sources of core; apt-get install rust-web-src" >&2; exit 3; }
  command -v ld.lld >/dev/null || { echo "error: no ld.lld; apt-get install lld" >&2; exit 3; }
  # A target folder of its own: two compilers must not share one.
  export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="$PWD/target/debian" CARGO_TARGET_THUMBV7EM_NONE_EABIHF_LINKER=ld.lld
  export PATH="/usr/bin:$PATH"
  cargo=(/usr/bin/cargo -Zbuild-std=core,alloc)
  out="$CARGO_TARGET_DIR"
fi
"${cargo[@]}" "${1:-build}" --release --locked "${@:2}"
echo "$out/$target/release"
