#!/bin/sh
# Put mailmaps in place; `make install [DESTDIR=] [PREFIX=/opt/mailmaps]` runs this.
#
# What it keeps to: the program is made whole beside the old one and then takes its place, so that what fails on the
# way changes nothing; nothing in /etc that is there already is touched, nothing is enabled, started or stopped. With
# DESTDIR all is put below it, and names the places it will have without.
set -eu
umask 022  # the daemon, who is not root, executes what is made here

DESTDIR=${DESTDIR:-}
PREFIX=${PREFIX:-/opt/mailmaps}
BINDIR=${BINDIR:-/usr/local/bin}
SHAREDIR=${SHAREDIR:-/usr/local/share}
LIBDIR=${LIBDIR:-/usr/lib/mailmaps}
SYSTEMDDIR=${SYSTEMDDIR:-/usr/lib}
PYTHON=${PYTHON:-python3}
SOURCE=$(cd "$(dirname "$0")/.." && pwd)

say() { echo "install: $*"; }
fail() {
    echo "install: $*" >&2
    exit 1
}

case $PREFIX in /?*) ;; *) fail "PREFIX is not an absolute path: $PREFIX" ;; esac
case $DESTDIR in '' | /?*) ;; *) fail "DESTDIR is not an absolute path: $DESTDIR" ;; esac
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$PYTHON is older than Python 3.11"
"$PYTHON" -c 'import ensurepip' 2>/dev/null || fail "$PYTHON cannot make virtual environments: apt-get install python3-venv"

# Without slashes at the end and doubled ones, as the programs below write paths into files.
plain() { printf '%s' "$1" | sed -e 's,//*,/,g' -e 's,/$,,'; }
DESTDIR=$(plain "$DESTDIR")
PREFIX=$(plain "$PREFIX")
case $DESTDIR$PREFIX/ in */./* | */../*) fail "DESTDIR and PREFIX must not have . or .. in them" ;; esac

final=$DESTDIR$PREFIX
stage=$final.new
if [ -e "$final" ] && [ ! -e "$final/pyvenv.cfg" ]; then
    fail "$final is there and is no virtual environment"
fi

# A virtual environment with the package.
build() {
    rm -rf "$stage"
    mkdir -p "$(dirname "$stage")"
    "$PYTHON" -m venv "$stage"
    "$stage/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile "$SOURCE"
}

# What comes out of the program: manual pages, completion for shells, the programs that Dovecot runs.
generate() {
    made=$stage/made
    mkdir "$made"
    "$stage/bin/python" -m mailmaps.manual "$made" >/dev/null
    for page in "$made"/man?/*; do put 644 "$page" "$SHAREDIR/man/man${page##*.}/${page##*/}"; done
    if "$stage/bin/mailmaps" completion --help >/dev/null 2>&1; then
        for shell in bash zsh fish; do "$stage/bin/mailmaps" completion $shell >"$made/$shell"; done
        put 644 "$made/bash" "$SHAREDIR/bash-completion/completions/mailmaps"
        put 644 "$made/zsh" "$SHAREDIR/zsh/site-functions/_mailmaps"
        put 644 "$made/fish" "$SHAREDIR/fish/vendor_completions.d/mailmaps.fish"
    fi
    rm -rf "$made"
}

# Scripts and compiled files then name the place that they will have.
relocate() {
    rm -f "$stage"/bin/[Aa]ctivate*
    grep -lI --fixed-strings "$stage" "$stage"/bin/* "$stage/pyvenv.cfg" | while read -r file; do
        [ -L "$file" ] || sed -i "s|$stage|$PREFIX|g" "$file"
    done
    # A library may have a file for another Python that does not compile: that is no reason to fail.
    (cd "$stage" && bin/python -m compileall -q -f -s "$stage" -p "$PREFIX" . >/dev/null) || true
    "$stage/bin/python" -m mailmaps --version >/dev/null
    if grep -rqI --fixed-strings "${stage##*/}" "$stage/bin" "$stage/pyvenv.cfg"; then
        fail "scripts in $stage/bin still name $stage"
    fi
}

put() { install -D -m "$1" "$2" "$DESTDIR$3"; }

units() {
    for unit in "$SOURCE"/systemd/*.service "$SOURCE"/systemd/*.socket "$SOURCE"/systemd/*.timer; do
        [ -e "$unit" ] || continue
        target=$SYSTEMDDIR/systemd/system/${unit##*/}
        put 644 "$unit" "$target"
        sed -i "s|/opt/mailmaps/|$PREFIX/|g" "$DESTDIR$target"
    done
    put 644 "$SOURCE/systemd/sysusers.conf" "$SYSTEMDDIR/sysusers.d/mailmaps.conf"
    put 644 "$SOURCE/systemd/tmpfiles.conf" "$SYSTEMDDIR/tmpfiles.d/mailmaps.conf"
}

documents() {
    for file in README.md CHANGELOG.md LICENSE systemd/README.md systemd/mailmaps-pam.conf; do
        put 644 "$SOURCE/$file" "$SHAREDIR/doc/mailmaps/$file"
    done
    put 644 "$SOURCE/src/mailmaps/mailmaps.toml" "$SHAREDIR/doc/mailmaps/mailmaps.toml"
    (cd "$SOURCE" && find docs postfix dovecot -type f ! -name '.*') | while read -r file; do
        put 644 "$SOURCE/$file" "$SHAREDIR/doc/mailmaps/$file"
    done
}

# The new in place of the old: two renames, and the second is undone if it fails.
swap() {
    rm -rf "$final.old"
    if [ -e "$final" ]; then mv "$final" "$final.old"; fi
    mv "$stage" "$final" || {
        if [ -e "$final.old" ]; then mv "$final.old" "$final"; fi
        fail "$final cannot be put in place"
    }
    rm -rf "$final.old"
}

# On the machine itself, as root: the user, the folders, and systemd told of the units.
live() {
    if command -v systemd-sysusers >/dev/null; then systemd-sysusers "$SYSTEMDDIR/sysusers.d/mailmaps.conf"; fi
    if command -v systemd-tmpfiles >/dev/null; then
        systemd-tmpfiles --create "$SYSTEMDDIR/tmpfiles.d/mailmaps.conf"
    fi
    if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
}

trap 'rm -rf "$stage"' EXIT
build
generate
relocate
put 755 "$SOURCE/src/mailmaps/dovecot/checkpassword.py" "$LIBDIR/checkpassword.py"
put 644 "$SOURCE/src/mailmaps/dovecot/mailmaps.lua" "$LIBDIR/mailmaps.lua"
units
documents
[ -d "$DESTDIR/etc/mailmaps" ] || install -d -m 755 "$DESTDIR/etc/mailmaps"
swap
install -d -m 755 "$DESTDIR$BINDIR"
ln -sfn "$PREFIX/bin/mailmaps" "$DESTDIR$BINDIR/mailmaps"
if [ -z "$DESTDIR" ] && [ "$(id -u)" -eq 0 ]; then live; fi
say "$("$final/bin/python" -m mailmaps --version) is in $final"
say "nothing was started; after an upgrade: systemctl restart mailmaps (no client notices)"
