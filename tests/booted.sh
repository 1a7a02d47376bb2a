#!/bin/sh
# Boot a Debian tree with its own systemd, run a command in it, end it: `sh tests/booted.sh ROOT COMMAND...`
# (as root). The exit code is that of the command.
#
# What it keeps to: all is in namespaces of its own (processes, mounts, network with loopback alone, host name,
# cgroups), /proc/sys and /sys are read-only, so nothing outside the tree changes; however this ends, the kernel ends
# what runs in there. ROOT has systemd, systemd-sysv and dbus (debootstrap --variant=minbase --include=...).
# BOOT_LOG=FILE keeps what systemd prints. Wants cgroup v1 or v2 mounted so that root may write to it.
set -eu

# Seconds until every unit of multi-user.target must have been started, or have failed.
PATIENCE=120

# In the namespaces: become the init of the tree $1.
become_init() {
    root=$1
    mount --make-rprivate /
    mount --bind "$root" "$root"
    mount -t proc proc "$root/proc"
    mount --bind "$root/proc/sys" "$root/proc/sys"
    mount -o remount,bind,ro "$root/proc/sys"
    mount -t sysfs -o ro sysfs "$root/sys"
    mount -t tmpfs -o mode=755 tmpfs "$root/sys/fs/cgroup"
    if [ -d /sys/fs/cgroup/systemd ]; then
        mkdir "$root/sys/fs/cgroup/systemd" "$root/sys/fs/cgroup/unified"
        mount -t cgroup -o none,name=systemd cgroup "$root/sys/fs/cgroup/systemd"
        mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup/unified"
    else
        mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
    fi
    mount -t tmpfs -o mode=755 tmpfs "$root/run"
    mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
    mount -t tmpfs -o mode=755 tmpfs "$root/dev"
    for node in null zero full random urandom tty; do
        : >"$root/dev/$node"
        mount --bind "/dev/$node" "$root/dev/$node"
    done
    mkdir "$root/dev/pts" "$root/dev/shm"
    mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
    mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
    ln -s pts/ptmx "$root/dev/ptmx"
    ln -s /proc/self/fd "$root/dev/fd"
    for number in 0 1 2; do ln -s "/proc/self/fd/$number" "$root/dev/fd$number"; done
    mv "$root/dev/fd0" "$root/dev/stdin"
    mv "$root/dev/fd1" "$root/dev/stdout"
    mv "$root/dev/fd2" "$root/dev/stderr"
    hostname booted
    cd "$root"
    mkdir -p mnt
    pivot_root . mnt
    umount -l /mnt
    mount --make-rshared / # credentials are made in a namespace of their own, and have to be seen
    exec env -i container=booted.sh PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd \
        --log-target=console --show-status=no --unit=multi-user.target
}

if [ "$1" = --become-init ]; then
    become_init "$2"
fi

ROOT=$(cd "$1" && pwd)
shift

# A group of our own below ours in every hierarchy (what takes settings before it takes processes is left out).
GROUPS_OF=
while IFS=: read -r _ names path; do
    for mounted in "${names#name=}" ${names:-unified .}; do
        group=/sys/fs/cgroup/$mounted$path
        if [ -w "$group/cgroup.procs" ] && [ ! -e "$group/cpuset.cpus" ]; then
            GROUPS_OF="$GROUPS_OF ${group%/}/booted.$$"
            break
        fi
    done
done </proc/self/cgroup
OUTER=

finish() {
    trap - EXIT
    if [ -n "$OUTER" ]; then
        kill -KILL "$OUTER" 2>/dev/null || true # its child, the init, goes with it, and with that all others
        wait "$OUTER" 2>/dev/null || true
    fi
    for group in $GROUPS_OF; do
        for _ in 1 2 3 4 5 6 7 8 9 10; do
            find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
            [ -d "$group" ] || break
            sleep 0.3
        done
    done
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

for group in $GROUPS_OF; do mkdir "$group"; done
# shellcheck disable=SC2086  # a list of folders
sh -c 'for group in $1; do echo $$ >"$group/cgroup.procs" || exit 71; done; shift
    exec unshare --cgroup --pid --fork --mount --uts --ipc --net --kill-child=KILL sh "$1" --become-init "$2"' \
    booted "$GROUPS_OF" "$(realpath "$0")" "$ROOT" </dev/null >"${BOOT_LOG:-/dev/null}" 2>&1 &
OUTER=$!

inside() {
    nsenter --target "$INIT" --mount --uts --ipc --net --pid --cgroup \
        env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 HOME=/root "$@"
}

INIT=
for _ in $(seq "$PATIENCE"); do
    sleep 1
    kill -0 "$OUTER" 2>/dev/null || { echo "booted.sh: the init of $ROOT has ended" >&2; exit 70; }
    INIT=$(cat "/proc/$OUTER/task/$OUTER/children" 2>/dev/null | tr -d ' ')
    [ -n "$INIT" ] || continue
    case $(inside systemctl is-system-running 2>/dev/null || true) in running | degraded) break ;; esac
done
inside ip link set lo up 2>/dev/null || true
inside "$@"
