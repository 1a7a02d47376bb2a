#!/bin/sh
# Take away what `make install` put in place; `make uninstall [DESTDIR=] [PREFIX=/opt/mailmaps]` runs this.
#
# What it keeps to: only what install.sh wrote down is removed, and the program. Settings, passwords, drop-ins of
# units, what lies below /var (files that Postfix reads among it), mail, the database and the user stay. Nothing is
# stopped: while a unit runs or is enabled it does nothing, since mail may wait for it.
set -eu

# shellcheck source=packaging/places.sh
. "$(dirname "$0")/places.sh"

[ -e "$final/pyvenv.cfg" ] || fail "there is no mailmaps in $final"
[ -e "$final/$written" ] ||
    fail "$final does not say what was installed: it is of an older version; make install, then make uninstall"

# The units that are running or would be started.
used() {
    sed -n 's|.*/systemd/system/\(.*\)|\1|p' "$final/$written" | while read -r unit; do
        case $(systemctl is-active "$unit")/$(systemctl is-enabled "$unit" 2>/dev/null) in
            inactive/enabled* | failed/enabled* | active/* | *ing/*) printf ' %s' "$unit" ;;
        esac
    done
}

if is_live; then
    units=$(used)
    [ -z "$units" ] || fail "still running, or enabled: nothing was removed. First: systemctl disable --now$units"
fi

# Folders of ours go with the last file in them.
take() {
    case $1 in /*) ;; *) fail "$final/$written: no path: $1" ;; esac
    case $1/ in */../*) fail "$final/$written: no path: $1" ;; esac
    rm -f "$DESTDIR$1"
    folder=${1%/*}
    while [ "$folder" != "${folder#*/mailmaps}" ]; do
        rmdir "$DESTDIR$folder" 2>/dev/null || break
        folder=${folder%/*}
    done
}

while read -r path; do take "$path"; done <"$final/$written"
rm -rf "$final"
if is_live; then systemctl daemon-reload; fi
say "mailmaps is gone from $final; what it does not take away is in docs/installing.md:"
say "/etc/mailmaps, /etc/systemd/system/mailmaps*, /var/lib/mailmaps*, mail, the database, the user mailmaps"
