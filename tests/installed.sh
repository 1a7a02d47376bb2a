#!/bin/sh
# From nothing to delivered mail: a bare Debian 12 with PostgreSQL, Postfix and Prometheus, `make install`, the
# README's three commands, and what tests/installed says after that; `make test-install` runs this, as root.
#
#   sh tests/installed.sh PYTHON [STEP...]
#
# PYTHON is one with pip; it fetches the libraries, which the tree then takes from a folder. What it keeps to: all
# files lie in .installed (remove it to start anew), the tree in .installed/root, made anew for each run; all mounts
# and processes are in namespaces that end with this script, however it ends (tests/booted.sh); nothing outside is
# changed. The tree has what git would clone and what is not committed yet.
set -eu

python=$1
shift
project=$(cd "$(dirname "$0")/.." && pwd)
home=$project/.installed
base=$home/base
root=$home/root
sources=$root/root/mailmaps
# What README.md has installed by apt, what Debian has anyway where systemd runs, and Prometheus to look at it.
packages="postgresql,postfix,postfix-lmdb,python3-venv,make"
packages="$packages,systemd,systemd-sysv,dbus,procps,iproute2,ca-certificates,prometheus"
# Seconds for everything that runs in the tree.
limit=600

if [ "$(id -u)" -ne 0 ]; then
    echo "test-install: needs root, for debootstrap and for a systemd of its own" >&2
    exit 1
fi
if ! command -v debootstrap >/dev/null; then
    echo "test-install: debootstrap is missing: apt-get install debootstrap" >&2
    exit 1
fi

# A Debian mirror of this machine's; without one, debootstrap's own.
mirror() {
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        grep -m 1 '/debian/\?$' || true
}

# apt's proxies, in the variables that wget knows.
proxies() {
    apt-config shell http_proxy Acquire::http::Proxy https_proxy Acquire::https::Proxy
}

make_base() {
    rm -rf "$base"
    eval "$(proxies)"
    [ -z "${http_proxy:-}" ] || export http_proxy
    [ -z "${https_proxy:-}" ] || export https_proxy
    # shellcheck disable=SC2046  # no mirror, no word
    DEBIAN_FRONTEND=noninteractive debootstrap --variant=minbase "--include=$packages" \
        bookworm "$base" $(mirror) >"$home/debootstrap.log" 2>&1 || {
        tail -n 20 "$home/debootstrap.log" >&2
        exit 1
    }
    rm -f "$base"/var/cache/apt/archives/*.deb
    echo "$packages" >"$base/.made"
}

# The libraries for the Python in the tree, and what builds a wheel: what pip would load from the index.
fetch_libraries() {
    version=$(chroot "$base" python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    rm -rf "$home/own" "$home/wheels"
    "$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$home/own" "$project"
    "$python" -m pip download --quiet --disable-pip-version-check --dest "$home/wheels" \
        --python-version "$version" --only-binary=:all: 'hatchling>=1.24' "$home"/own/*.whl 2>"$home/pip.log" || {
        tail -n 20 "$home/pip.log" >&2
        exit 1
    }
    rm "$home"/wheels/mailmaps-*.whl # the tree makes its own
    touch "$home/wheels/.made"
}

# Tracked files as they are now, and new ones: `git clone` would not see what is not committed.
copy_sources() {
    mkdir -p "$sources"
    cd "$project"
    # shellcheck disable=SC2016  # the inner shell expands it
    git ls-files -coz --exclude-standard |
        xargs -0 sh -c 'for file; do [ ! -e "$file" ] || printf "%s\0" "$file"; done' sh |
        tar --null --create --file - --files-from - | tar --extract --file - --directory "$sources"
}

say() { printf '== %s (%s s)\n' "$1" "$(($(date +%s) - started))"; }

started=$(date +%s)
mkdir -p "$home"
echo '*' >"$home/.gitignore"
[ "$(cat "$base/.made" 2>/dev/null)" = "$packages" ] || make_base
[ "$home/wheels/.made" -nt "$project/pyproject.toml" ] || fetch_libraries
rm -rf "$root"
cp -a "$base" "$root"
cp -a "$home/wheels" "$root/wheels"
copy_sources
say "a bare Debian 12 in $root"

# shellcheck disable=SC2016  # the inner shell expands these
unshare --mount --propagation private sh -euc '
    mount --rbind /dev "$1/dev"
    mount -t proc proc "$1/proc"
    mount -t tmpfs -o mode=1777 tmpfs "$1/tmp"
    exec chroot "$1" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
        PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels make --no-print-directory -C /root/mailmaps install' \
    sh "$root" >"$home/install.log" 2>&1 || {
    tail -n 30 "$home/install.log" >&2
    exit 1
}
say "make install"

# In the background, since sh(1) hears of no signal while it waits for a foreground command; and who kills this
# script ends that too (prctl(2), PR_SET_PDEATHSIG).
code=0
BOOT_LOG="$home/boot.log" setpriv --pdeathsig TERM timeout --kill-after=20 "$limit" \
    sh "$project/tests/booted.sh" "$root" \
    sh -c 'cd /root/mailmaps && exec python3 -B -m tests.installed "$@"' sh "$@" &
running=$!
trap 'kill "$running" 2>/dev/null; wait "$running"; exit 143' HUP INT TERM
wait "$running" || code=$?
say "ended with $code"
exit "$code"
