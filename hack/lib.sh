# What the scripts share: progress, and installing what is missing. Sourced, not run.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
ROOT=$PWD
STATE=${FERROKUBE_STATE:-$ROOT/.ferrokube}
mkdir -p "$STATE"
T0=$(date +%s)
say() { printf '\033[1m[%3ds]\033[0m %s\n' "$(( $(date +%s) - T0 ))" "$*"; }
die() { echo "error: $*" >&2; exit 1; }

# packages NAME...: installs Debian packages that are missing
packages() {
  local missing=() p
  for p in "$@"; do dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q "install ok installed" || missing+=("$p"); done
  [ ${#missing[@]} = 0 ] && return
  [ "$(id -u)" = 0 ] || die "these packages are missing and only root can install them: ${missing[*]}"
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq > "$STATE/apt.log" 2>&1 || die "apt-get update failed; see $STATE/apt.log"
  # The machine's own daemons are not wanted: what is installed here runs in hosts and tests.
  printf '#!/bin/sh\nexit 101\n' > "$STATE/policy-rc.d"; chmod +x "$STATE/policy-rc.d"
  local policy=/usr/sbin/policy-rc.d had=
  [ -e $policy ] && had=1 || cp "$STATE/policy-rc.d" $policy
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >> "$STATE/apt.log" 2>&1 || { [ -n "$had" ] || rm -f $policy; die "apt-get install failed; see $STATE/apt.log"; }
  [ -n "$had" ] || rm -f $policy
}

# A toolchain new enough to build with.
rust() {
  [ -x "$HOME/.cargo/bin/cargo" ] && export PATH="$HOME/.cargo/bin:$PATH"
  local want=1.95 have
  have=$(cargo --version 2>/dev/null | sed -n 's/cargo \([0-9]*\.[0-9]*\).*/\1/p')
  if [ -z "$have" ] || [ "$(printf '%s\n%s\n' "$want" "$have" | sort -V | head -1)" != "$want" ]; then
    say "installing a Rust toolchain with rustup"
    if ! command -v rustup >/dev/null; then
      curl -sSf --retry 2 https://sh.rustup.rs -o "$STATE/rustup-init" || die "rustup can't be fetched; install Rust $want or newer by hand (https://rustup.rs)"
      sh "$STATE/rustup-init" -y -q --profile minimal -c clippy -c rustfmt > "$STATE/rustup.log" 2>&1 || die "rustup failed; see $STATE/rustup.log"
      export PATH="$HOME/.cargo/bin:$PATH"
    else
      rustup update stable > "$STATE/rustup.log" 2>&1 || die "rustup update failed; see $STATE/rustup.log"
    fi
  fi
}

# kubectl, if the machine has none: Debian's own, of a later release.
kubectl_present() {
  command -v kubectl >/dev/null && return
  if [ ! -x "$STATE/bin/kubectl" ]; then
    say "fetching kubectl from a later Debian"
    local mirror; mirror=$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | grep -v security | head -1)
    local apt=$STATE/apt; mkdir -p "$apt"/{lists,cache/archives/partial} "$STATE/bin"
    echo "deb [trusted=yes] ${mirror:?no Debian mirror is configured} trixie main" > "$apt/sources.list"
    local options=(-o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$apt/lists" -o Dir::Cache="$apt/cache")
    apt-get "${options[@]}" update -qq > "$STATE/apt.log" 2>&1 || die "apt-get update failed; see $STATE/apt.log"
    (cd "$apt" && apt-get "${options[@]}" download kubernetes-client >> "$STATE/apt.log" 2>&1) || die "kubectl can't be fetched; install kubectl 1.32 or newer by hand"
    dpkg-deb -x "$apt"/kubernetes-client_*.deb "$apt/x" && cp "$apt"/x/usr/bin/kubectl "$STATE/bin/kubectl"
    rm -rf "$apt"
  fi
  export PATH="$STATE/bin:$PATH"
}

target() { echo "${CARGO_TARGET_DIR:-$ROOT/target}"; }
DAEMONS=(kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy ferrokube-dns)
build() { # build PROFILE
  say "building the daemons (the first time takes minutes)"
  cargo build --locked --quiet --profile "$1" $(printf -- '--bin %s ' "${DAEMONS[@]}") || die "the build failed"
}
