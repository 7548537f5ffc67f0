# Shared by the scripts in this folder: steps with a progress line, packages by name, the machine's fingerprint.
# Sourced, never run.

# step TEXT COMMAND...: runs the command, prints one line when it is done and all it wrote when it fails.
step() {
    local text=$1 log start status=0
    shift
    log=$(mktemp)
    start=$(date +%s%N)
    printf '  %-44s' "$text" >&2
    "$@" >"$log" 2>&1 || status=$?
    local ms=$((($(date +%s%N) - start) / 1000000))
    if [ "$status" -eq 0 ]; then
        printf ' ok   %6d ms\n' "$ms" >&2
    else
        printf ' FAILED (exit %d) after %d ms\n' "$status" "$ms" >&2
        cat "$log" >&2
    fi
    rm -f "$log"
    return "$status"
}

die() {
    printf 'error: %s\n' "$1" >&2
    exit "${2:-1}"
}

need_root() {
    [ "$(id -u)" -eq 0 ] || die "network namespaces need root here · try: sudo $0" 5
}

need_cargo() {
    command -v cargo >/dev/null || PATH="$HOME/.cargo/bin:$PATH"
    command -v cargo >/dev/null || die "no cargo on PATH · try: https://rustup.rs" 5
}

# The C compiler is the linker of every Rust build; a minimal Debian may lack it.
need_linker() {
    command -v cc >/dev/null || need_packages gcc libc6-dev
}

# The page's tools; Debian's packages where nothing else is there.
need_node() {
    command -v npm >/dev/null || need_packages nodejs npm
    node_is_recent && return 0
    # Debian 12 has 18. The npm registry has Node.js itself as a package; it stays under target/.
    local arch=x64 home
    [ "$(uname -m)" = aarch64 ] && arch=arm64
    home=$(realpath -m "${CARGO_TARGET_DIR:-target}/node")
    mkdir -p "$home"
    step "Node.js 22 below target/" npm install --prefix "$home" --no-save --no-audit --no-fund "node-linux-$arch@22"
    PATH=$home/node_modules/node-linux-$arch/bin:$PATH
    node_is_recent || die "Node.js $(node --version) is too old for the page's tools · try: 20.19 or later" 5
}

node_is_recent() {
    [ "$(node -p 'const [a, b] = process.versions.node.split("."); a * 100 + +b')" -ge 2019 ]
}

# need_packages NAME...: installs the Debian packages that are not there yet.
need_packages() {
    local missing=() name
    for name in "$@"; do
        dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || missing+=("$name")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    command -v apt-get >/dev/null || die "missing packages: ${missing[*]} · try: install them with your package manager" 5
    step "packages: ${missing[*]}" install_packages "${missing[@]}"
}

# What a package would start (bird2 its daemon) is not wanted: the tests run programs in namespaces of their own.
install_packages() {
    local policy=/usr/sbin/policy-rc.d status=0 ours=
    if [ ! -e "$policy" ]; then
        ours=1
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    apt-get update -qq &&
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" || status=$?
    [ -z "$ours" ] || rm -f "$policy"
    return "$status"
}

# fingerprint: everything of this machine's network that a run could disturb, as text.
fingerprint() {
    ip -j link
    ip -j addr
    ip -j route show table all
    ip -j -6 route show table all
    ip -j rule
    # Counters of what other programs do are left out.
    # Some entries can be written only, which makes the first grep fail.
    { grep -rsH '' /proc/sys/net || true; } | grep -v -e conntrack_count -e '/fs/' | sort
    cat /proc/self/mounts
    # A directory that is not there is a fact too, not a failure.
    ls -A /run/netns /var/lib/cni /etc/cni 2>&1 || true
}
