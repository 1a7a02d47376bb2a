# Where things are put, for install.sh and uninstall.sh (which read this by `.`): DESTDIR, PREFIX, and what is
# written down of an installation.

DESTDIR=${DESTDIR:-}
PREFIX=${PREFIX:-/opt/mailmaps}

program=${0##*/}
say() { echo "${program%.sh}: $*"; }
fail() {
    say "$*" >&2
    exit 1
}

case $PREFIX in /?*) ;; *) fail "PREFIX is not an absolute path: $PREFIX" ;; esac
case $DESTDIR in '' | /?*) ;; *) fail "DESTDIR is not an absolute path: $DESTDIR" ;; esac

# Without slashes at the end and doubled ones, as the programs below write paths into files.
plain() { printf '%s' "$1" | sed -e 's,//*,/,g' -e 's,/$,,'; }
DESTDIR=$(plain "$DESTDIR")
PREFIX=$(plain "$PREFIX")
case $DESTDIR$PREFIX/ in */./* | */../*) fail "DESTDIR and PREFIX must not have . or .. in them" ;; esac

final=$DESTDIR$PREFIX

# What is put in place outside of PREFIX, a path a line, without DESTDIR.
written=installed-files

# On the machine itself, as root, where systemd runs.
is_live() { [ -z "$DESTDIR" ] && [ "$(id -u)" -eq 0 ] && [ -d /run/systemd/system ]; }
