#!/bin/sh
# Install the Debian packages that the tests with real servers need; `make test-packages` runs this.
#
# What it keeps to: no question is asked, no service is started, no other package is removed (Debian has
# room for one mail server: where another one is installed this stops and says so), and /usr/sbin/policy-rc.d
# is afterwards what it was before. Run again, it does nothing.
# shellcheck disable=SC2086  # lists of packages are split into words on purpose
set -eu

PACKAGES="systemd postfix postfix-pgsql postfix-cdb postfix-lmdb pgbouncer openssl
    dovecot-core dovecot-imapd dovecot-pop3d dovecot-lmtpd dovecot-managesieved dovecot-auth-lua lua-socket
    dovecot-pgsql libsasl2-modules sasl2-bin prometheus groff-base man-db mandoc"
POLICY=/usr/sbin/policy-rc.d
SAVED=$POLICY.before-mailmaps
MARK="mailmaps tests/packages.sh"

missing() {
    for package in $PACKAGES; do
        state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
        [ "$state" = installed ] || printf ' %s' "$package"
    done
}

# Denies every start. If an earlier run was killed, the file is still ours and $SAVED still the original.
deny_services() {
    if [ -e "$POLICY" ] || [ -L "$POLICY" ]; then
        grep -qs "$MARK" "$POLICY" || mv "$POLICY" "$SAVED"
    fi
    printf '#!/bin/sh\n# %s, removed at its end\nexit 101\n' "$MARK" >"$POLICY"
    chmod 755 "$POLICY"
}

restore_policy() {
    rm -f "$POLICY"
    if [ -e "$SAVED" ] || [ -L "$SAVED" ]; then
        mv "$SAVED" "$POLICY"
    fi
}

# Only for a fresh Postfix: one that is here already keeps the configuration it has.
preseed() {
    debconf-set-selections <<SELECTIONS
postfix postfix/main_mailer_type select Local only
postfix postfix/mailname string localhost
postfix postfix/protocols select all
SELECTIONS
}

install() {
    apt-get install --yes --no-install-recommends --no-remove -o DPkg::Lock::Timeout=300 $wanted
}

wanted=$(missing)
if [ -z "$wanted" ]; then
    echo "test-packages: all installed: $PACKAGES"
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "test-packages: needs root to install:$wanted" >&2
    exit 1
fi
if ! command -v apt-get >/dev/null; then
    echo "test-packages: this is not Debian; install Postfix with its pgsql, cdb and lmdb map types" >&2
    exit 1
fi

exec </dev/null
export DEBIAN_FRONTEND=noninteractive DEBIAN_PRIORITY=critical

trap restore_policy EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
deny_services

case "$wanted " in *' postfix '*) preseed ;; esac

# Lists that are absent or out of date are the usual reason for a failure, so they are fetched then.
echo "test-packages: installing$wanted"
apt-cache show $wanted >/dev/null 2>&1 || apt-get update
install || { apt-get update && install; } || {
    echo "test-packages: apt-get could not install:$wanted (another mail server, or no way to the mirror?)" >&2
    exit 1
}
