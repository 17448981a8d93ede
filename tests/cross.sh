#!/usr/bin/env bash
# Cross-builds the static, stripped `natlet` for small Linux machines and holds its size against tests/budget.toml.
#
#   tests/cross.sh [TARGET...]    default: every target of the budget
#   tests/cross.sh --tools        only installs what that needs
#   tests/cross.sh --cargo TARGET WORDS...
#                                 runs `cargo WORDS` for a target, with the default profile unless told otherwise
#
# The programs are target/cross/TARGET/small/natlet. Where rustup has a target installed, plain cargo builds it; elsewhere
# Debian's compiler, which comes with the sources of std, builds std along. No toolchain is downloaded. Missing Debian
# packages are installed where that is allowed (root or sudo without a password), else named; NATLET_NO_INSTALL=1 only names
# them. Exit status: 0 done, 1 failed or over budget, 3 a tool is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
# what the caller's own build was told is not for these
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET
budget=tests/budget.toml
target_dir=$PWD/target/cross

# musl's gcc for a target, and its packages
describe() {
  case $1 in
    aarch64-unknown-linux-musl) echo aarch64-linux-musl-gcc gcc-aarch64-linux-gnu musl-dev:arm64 ;;
    armv7-unknown-linux-musleabihf) echo arm-linux-musleabihf-gcc gcc-arm-linux-gnueabihf musl-dev:armhf ;;
    x86_64-unknown-linux-musl) echo musl-gcc musl-tools musl-dev ;;
    *) echo "error: no recipe for $1; there are: $(ceilings | cut -d' ' -f1 | xargs)" >&2; exit 1 ;;
  esac
}

# target and bytes of the table [natlet] of the budget
ceilings() {
  awk '/^\[/ { here = $0 == "[natlet]" } here && $2 == "=" { gsub("_", "", $3); print $1, $3 }' "$budget"
}

# whether plain cargo can build for a target: rustup has its std, and with it musl's own start files
has_std() {
  local libdir
  libdir=$(rustc --print target-libdir --target "$1" 2>/dev/null) && [ -d "$libdir" ] && [ -d "$libdir/self-contained" ]
}

# Installs packages, or says which and gives up.
need() {
  local missing=("$@") sudo=()
  [ ${#missing[@]} -gt 0 ] || return 0
  [ "$(id -u)" -eq 0 ] || sudo=(sudo -n)
  local foreign
  foreign=$(printf '%s\n' "${missing[@]}" | sed -n 's/.*://p' | sort -u | xargs)
  if [ "${NATLET_NO_INSTALL:-}" != 1 ] && command -v apt-get >/dev/null && "${sudo[@]}" true 2>/dev/null; then
    echo "installing ${missing[*]}"
    for architecture in $foreign; do "${sudo[@]}" dpkg --add-architecture "$architecture"; done
    "${sudo[@]}" apt-get update -qq || true # another repository of this machine may be out of order
    if "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; then
      return 0
    fi
  fi
  echo "error: cross-building needs ${missing[*]}; install them:" >&2
  for architecture in $foreign; do echo "  dpkg --add-architecture $architecture" >&2; done
  echo "  apt-get update && apt-get install --no-install-recommends ${missing[*]}" >&2
  exit 3
}

# What Debian's musl and std expect of each other. std asks for libunwind, which gcc calls libgcc_eh; that one asks for
# glibc's _dl_find_object (not on 32-bit ARM), and -1 there means "search the program headers".
stubs() {
  local target=$1 gcc=$2 directory=$3 unwind="-lgcc_eh"
  mkdir -p "$directory"
  if [ "$target" != armv7-unknown-linux-musleabihf ]; then
    echo 'int _dl_find_object(void *address, void *result) { (void)address; (void)result; return -1; }' >"$directory/dlfo.c"
    "$gcc" -O2 -c "$directory/dlfo.c" -o "$directory/dlfo.o"
    ar rcs "$directory/libdlfo.a" "$directory/dlfo.o"
    unwind+=" -ldlfo"
  fi
  echo "INPUT($unwind)" >"$directory/libunwind.a"
}

only_tools= words=()
case ${1:-} in
  --tools)
    only_tools=1
    shift
    ;;
  --cargo)
    words=("${@:3}")
    set -- "$2"
    ;;
esac
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(ceilings | cut -d' ' -f1)

plain=() debian=() missing=() settings=()
for target in "${targets[@]}"; do
  recipe=$(describe "$target")
  read -r gcc packages <<<"$recipe"
  if has_std "$target"; then
    plain+=(--target "$target")
    continue
  fi
  debian+=(--target "$target")
  command -v "$gcc" >/dev/null || read -ra missing <<<"${missing[*]} $packages"
done
# Debian's compiler keeps std's sources here; a rustc of another origin at this place would not
if [ ${#debian[@]} -gt 0 ] && ! [ -d "$(/usr/bin/rustc --print sysroot 2>/dev/null)/lib/rustlib/src/rust/library" ]; then
  missing+=(rustc-web cargo-web rust-web-src)
fi
need "${missing[@]}"
[ -z "$only_tools" ] || exit 0

for target in "${targets[@]}"; do
  variable=CARGO_TARGET_$(tr 'a-z-' 'A-Z_' <<<"$target")
  if has_std "$target"; then
    # musl's start files and libc come with the target: lld, which comes with the compiler, needs nothing else
    settings+=("${variable}_LINKER=rust-lld" "${variable}_RUSTFLAGS=-Clinker-flavor=ld.lld")
  else
    read -r gcc _ <<<"$(describe "$target")"
    stubs "$target" "$gcc" "$target_dir/stub/$target"
    # A std that is built here brings no start files. Debian's gcc takes the one for dynamic position-independent programs,
    # hence the relocation model.
    settings+=("${variable}_LINKER=$gcc" "${variable}_RUSTFLAGS=-Clink-self-contained=no -Ctarget-feature=+crt-static \
-Crelocation-model=static -Lnative=$target_dir/stub/$target")
  fi
done
# All targets in one run of cargo: the last step of each, the optimiser's look at the whole program, uses one core only.
cargo=(build --profile small --locked --quiet -p natlet --bin natlet) std=std,panic_abort
[ ${#words[@]} -eq 0 ] || cargo=("${words[@]}")
[ "${cargo[0]}" != test ] || std=std,panic_unwind,panic_abort,test
command=${cargo[0]} rest=("${cargo[@]:1}")
[ ${#plain[@]} -eq 0 ] || env "${settings[@]}" CARGO_TARGET_DIR="$target_dir" cargo "$command" "${plain[@]}" "${rest[@]}"
[ ${#debian[@]} -eq 0 ] || env "${settings[@]}" CARGO_TARGET_DIR="$target_dir" RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 \
  /usr/bin/cargo "$command" "${debian[@]}" -Zbuild-std="$std" "${rest[@]}"
[ ${#words[@]} -eq 0 ] || exit 0

over=0
for target in "${targets[@]}"; do
  program=$target_dir/$target/small/natlet
  bytes=$(stat -c %s "$program")
  ceiling=$(ceilings | sed -n "s/^$target //p")
  if [ "$bytes" -le "${ceiling:-0}" ]; then verdict=ok; else verdict="OVER BUDGET" over=1; fi
  printf '%-32s %9d bytes of %9d  %s\n' "$target" "$bytes" "${ceiling:-0}" "$verdict"
done
exit $over
