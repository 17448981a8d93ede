#!/usr/bin/env bash
# Passes all tests: installs the tools that they use where it may, else says what to install.
# No network traffic leaves this machine: everything that is sent stays in network namespaces that the tests make.
set -euo pipefail
cd "$(dirname "$0")/.."

# command, Debian package
tools=(
  "nft nftables"
  "iptables-restore iptables"
  "conntrack conntrack"
  "ip iproute2"
  "setpriv util-linux"
  "strace strace"
  "faketime faketime"
  "dot graphviz"
  "qemu-aarch64-static qemu-user-static"
  "qemu-arm-static qemu-user-static"
  "qemu-system-arm qemu-system-arm"
)
export PATH="$PATH:/usr/sbin:/sbin"
missing=()
for tool in "${tools[@]}"; do
  read -r name package <<<"$tool"
  command -v "$name" >/dev/null || missing+=("$package")
done
command -v cc >/dev/null || missing+=("gcc" "libc6-dev")
sudo=()
[ "$(id -u)" -eq 0 ] || sudo=(sudo -n)

# The compilers for the board and for small Linux machines are Debian's where the default toolchain lacks their targets
# (firmware-example/build.sh, tests/cross.sh). Where neither can be had (Ubuntu without the targets), their tests are left out.
lacks() { ! [ -d "$(rustc --print target-libdir --target "$1" 2>/dev/null)" ]; }
debian_rust() { [ -x /usr/bin/rustc ] && [ -x /usr/bin/cargo ] && [ -d /usr/lib/rustlib/src/rust/library ]; }
cross=yes
if lacks thumbv7em-none-eabihf || lacks aarch64-unknown-linux-musl || lacks armv7-unknown-linux-musleabihf || lacks x86_64-unknown-linux-musl; then
  if ! debian_rust; then
    apt-cache show rustc-web >/dev/null 2>&1 || "${sudo[@]}" apt-get update -qq || true
    if apt-cache show rustc-web >/dev/null 2>&1; then
      missing+=("rustc-web" "cargo-web" "rust-web-src")
    else
      cross=no
    fi
  fi
  [ $cross = no ] || command -v ld.lld >/dev/null || missing+=("lld")
fi
if [ $cross = no ]; then
  echo "NOTE: the tests of the board and of ARM Linux are left out: no compiler for them here. For them, install the targets:"
  echo "  rustup target add thumbv7em-none-eabihf aarch64-unknown-linux-musl armv7-unknown-linux-musleabihf x86_64-unknown-linux-musl"
  export NATLET_NO_CROSS=1
fi
# A browser for the status page. Ubuntu has it as a snap only, which is no use in a container: there the page is tested as text.
if ! command -v chromium >/dev/null || ! command -v chromedriver >/dev/null; then
  apt-cache show chromium-driver >/dev/null 2>&1 || "${sudo[@]}" apt-get update -qq || true
  if apt-cache show chromium-driver >/dev/null 2>&1; then
    missing+=("chromium" "chromium-driver")
  else
    echo "NOTE: the status page is not tested in a browser: no package chromium-driver here."
    export NATLET_NO_BROWSER=1
  fi
fi
# kubectl reads the DaemonSet's manifests. Ubuntu has it as a snap only.
if ! command -v kubectl >/dev/null; then
  apt-cache show kubernetes-client >/dev/null 2>&1 || "${sudo[@]}" apt-get update -qq || true
  if apt-cache show kubernetes-client >/dev/null 2>&1; then
    missing+=("kubernetes-client")
  else
    echo "NOTE: the DaemonSet's manifests are not read by kubectl: no package kubernetes-client here."
    export NATLET_NO_KUBECTL=1
  fi
fi
if [ ${#missing[@]} -gt 0 ]; then
  echo "installing ${missing[*]}"
  "${sudo[@]}" apt-get update -qq || true # another repository of this machine may be out of order
  if ! { "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; }; then
    echo "error: the tests need ${missing[*]}; install them: apt-get install ${missing[*]}" >&2
    exit 1
  fi
fi

# The compilers for small machines; the test of what they make says what is wrong where this failed.
[ $cross = no ] || tests/cross.sh --tools || true

# A test that lacks its tool fails instead of being skipped.
export NATLET_NO_SKIP=1

step() { printf '\n== %s\n' "$*"; "$@"; }
if cargo fmt --version >/dev/null 2>&1; then
  step cargo fmt --all --check
  step cargo fmt --manifest-path firmware-example/Cargo.toml --check
else
  echo "no rustfmt here: formatting is not checked"
fi
if cargo clippy --version >/dev/null 2>&1; then
  step cargo clippy --workspace --all-targets --features natlet-tests/kubernetes --locked --quiet -- -D warnings
else
  echo "no clippy here: lints are not checked"
fi
# The board's images first: a clean build of them takes a minute that is no test's.
[ $cross = no ] || step firmware-example/build.sh build --quiet
step cargo test --manifest-path firmware-example/Cargo.toml --target "$(rustc -vV | sed -n 's/^host: //p')" --target-dir target/board --lib --locked --quiet
# ARM machines with their own kernels are booted where these were downloaded before: NATLET_ARM=1 fetches them, 100 MB
# (tests/arm.sh). The unit tests as ARM programs are a script of their own, for its build time: tests/emulated.sh.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
step cargo test --workspace --features natlet-tests/kubernetes --locked --quiet | tee "$log"
awk '/^test result:/ { passed += $4; failed += $6; ignored += $8 }
  END { printf "\n%d passed, %d failed, %d skipped\n", passed, failed, ignored }' "$log"
