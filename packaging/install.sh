#!/bin/sh
# Put mailmaps in place; `make install [DESTDIR=] [PREFIX=/opt/mailmaps]` runs this.
#
# What it keeps to: the program is made whole beside the old one and takes its place at the end, so that what fails
# before changes nothing; nothing in /etc that is there already is touched, nothing is enabled, started or stopped. With
# DESTDIR all is put below it, and names the places it will have without.
set -eu
umask 022  # the daemon, who is not root, executes what is made here

BINDIR=${BINDIR:-/usr/local/bin}
SHAREDIR=${SHAREDIR:-/usr/local/share}
LIBDIR=${LIBDIR:-/usr/lib/mailmaps}
SYSTEMDDIR=${SYSTEMDDIR:-/usr/lib}
PYTHON=${PYTHON:-python3}
SOURCE=$(cd "$(dirname "$0")/.." && pwd)

# shellcheck source=packaging/places.sh
. "$SOURCE/packaging/places.sh"

# The daemon may not go into anybody's home, where pyenv and its like keep theirs.
is_in_a_home() {
    case $("$1" -c 'import sys; print(sys.base_prefix + "/")') in
        /root/* | /home/* | /run/user/*) true ;;
        *) false ;;
    esac
}
if [ "$PYTHON" = python3 ] && is_in_a_home python3 && [ -x /usr/bin/python3 ]; then
    say "taking /usr/bin/python3, since $(command -v python3) is in somebody's home"
    PYTHON=/usr/bin/python3
fi

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$PYTHON is older than Python 3.11"
"$PYTHON" -c 'import ensurepip' 2>/dev/null || fail "$PYTHON cannot make virtual environments: apt-get install python3-venv"
if is_in_a_home "$PYTHON"; then
    where="$PYTHON is in somebody's home, where the daemon may not go: PYTHON=/usr/bin/python3"
    [ -n "$DESTDIR" ] || fail "$where"
    say "warning: $where" >&2
fi

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

# What comes out of the program: manual pages, completion for shells.
generate() {
    made=$stage/made
    mkdir "$made"
    "$stage/bin/python" -m mailmaps.manual "$made" >/dev/null
    for shell in bash zsh fish; do "$stage/bin/mailmaps" completion $shell >"$made/$shell"; done
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

put() {
    install -D -m "$1" "$2" "$DESTDIR$3"
    echo "$3" >>"$stage/$written"
}

generated() {
    for page in "$made"/man?/*; do put 644 "$page" "$SHAREDIR/man/man${page##*.}/${page##*/}"; done
    put 644 "$made/bash" "$SHAREDIR/bash-completion/completions/mailmaps"
    put 644 "$made/zsh" "$SHAREDIR/zsh/site-functions/_mailmaps"
    put 644 "$made/fish" "$SHAREDIR/fish/vendor_completions.d/mailmaps.fish"
    rm -rf "$made"
}

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

# For uninstall.sh; what an older version has put elsewhere stays, somebody may use it, and is remembered.
write_down() {
    echo "$BINDIR/mailmaps" >>"$stage/$written"
    if [ -e "$final/$written" ]; then cat "$final/$written" >>"$stage/$written"; fi
    sort -u -o "$stage/$written" "$stage/$written"
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
generated
put 755 "$SOURCE/src/mailmaps/dovecot/checkpassword.py" "$LIBDIR/checkpassword.py"
put 644 "$SOURCE/src/mailmaps/dovecot/mailmaps.lua" "$LIBDIR/mailmaps.lua"
units
documents
[ -d "$DESTDIR/etc/mailmaps" ] || install -d -m 755 "$DESTDIR/etc/mailmaps"
write_down
swap
install -d -m 755 "$DESTDIR$BINDIR"
ln -sfn "$PREFIX/bin/mailmaps" "$DESTDIR$BINDIR/mailmaps"
if [ -z "$DESTDIR" ] && [ "$(id -u)" -eq 0 ]; then live; fi
say "$("$final/bin/python" -m mailmaps --version) is in $final"
say "nothing was started; after an upgrade: mailmaps schema status, then systemctl restart mailmaps (docs/installing.md)"
