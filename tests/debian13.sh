#!/bin/sh
# Run the tests of logins against Debian 13's Dovecot (2.4) and Postfix, then the differential test against its
# Postfix (3.10 speaks UTF-8 to PostgreSQL, Debian 12's 3.7 does not), in a tree of its own; `make test-debian13`
# runs this, as root. Words after the first go to tests.system.differential.
#
#   sh tests/debian13.sh PYTHON [--count N] [--seed SEED] [--pairs]
#
# PYTHON is one with pip; it fetches the libraries for the tree's own Python. What it keeps to: all files lie
# in .debian13 (remove it to start anew), differences.txt among them; all mounts are in a mount namespace that
# ends with this script, however it ends; no service is started, and nothing outside is changed.
set -eu

python=$1
shift
project=$(cd "$(dirname "$0")/.." && pwd)
home=$project/.debian13
tree=$home/root
libraries=$tree/opt/libraries
packages="postfix,postfix-pgsql,postfix-cdb,postfix-lmdb,pgbouncer,openssl,python3,util-linux"
packages="$packages,dovecot-imapd,dovecot-pop3d,dovecot-lmtpd,dovecot-managesieved,dovecot-auth-lua,lua-socket"
packages="$packages,dovecot-pgsql,libsasl2-modules,sasl2-bin"
logins="tests/dovecot tests/system/test_dovecot.py tests/system/test_postfix_sasl.py tests/system/test_logins.py
    tests/system/test_login_outages.py tests/auth"

if [ "$(id -u)" -ne 0 ]; then
    echo "test-debian13: needs root, for debootstrap and for Postfix's master" >&2
    exit 1
fi
if ! command -v debootstrap >/dev/null; then
    echo "test-debian13: debootstrap is missing: apt-get install debootstrap" >&2
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

make_tree() {
    rm -rf "$tree"
    mkdir -p "$home"
    echo '*' >"$home/.gitignore"
    eval "$(proxies)"
    [ -z "${http_proxy:-}" ] || export http_proxy
    [ -z "${https_proxy:-}" ] || export https_proxy
    # shellcheck disable=SC2046  # no mirror, no word
    DEBIAN_FRONTEND=noninteractive debootstrap --variant=minbase "--include=$packages" \
        trixie "$tree" $(mirror) >"$home/debootstrap.log" 2>&1 || {
        tail -n 20 "$home/debootstrap.log" >&2
        exit 1
    }
    echo "$packages" >"$tree/.made"
}

# The libraries for the Python inside, and mailmaps itself for its metadata; its code is read from the project.
fetch_libraries() {
    version=$(chroot "$tree" python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    rm -rf "$libraries"
    "$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$home/wheels" "$project"
    "$python" -m pip install --quiet --disable-pip-version-check --target "$libraries" \
        --python-version "$version" --only-binary=:all: --find-links "$home/wheels" 'mailmaps[demo,dev]'
    touch "$libraries/.made"
}

[ "$(cat "$tree/.made" 2>/dev/null)" = "$packages" ] || make_tree
[ "$libraries/.made" -nt "$project/pyproject.toml" ] || fetch_libraries
mkdir -p "$tree/project"

# shellcheck disable=SC2016  # the inner shell expands these
exec unshare --mount --propagation private sh -euc '
    tree=$1 project=$2 logins=$3 report=/project/.debian13/differences.txt
    shift 3
    mount --bind "$project" "$tree/project"
    mount --rbind /dev "$tree/dev"
    mount -t proc proc "$tree/proc"
    mount -t tmpfs -o mode=1777 tmpfs "$tree/tmp"
    exec chroot "$tree" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 TERM="${TERM:-dumb}" \
        PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/project/src:/project:/opt/libraries CI=true LOGINS="$logins" \
        sh -c "cd /project && python3 -m pytest -q -p no:cacheprovider \$LOGINS &&
            exec python3 -m tests.system.differential \"\$@\"" sh --report "$report" "$@"
' sh "$tree" "$project" "$logins" "$@"
