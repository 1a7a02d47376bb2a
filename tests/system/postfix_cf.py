"""What main.cf, master.cf and the queue of a private Postfix hold before a test says anything."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

MASTER_CF = """\
127.0.0.1:{port} inet n - n - {smtpd_limit} smtpd
pickup   unix  n  -  n  60   1  pickup
cleanup  unix  n  -  n  -    0  cleanup
qmgr     unix  n  -  n  300  1  qmgr
rewrite  unix  -  -  n  -    -  trivial-rewrite
bounce   unix  -  -  n  -    0  bounce
defer    unix  -  -  n  -    0  bounce
trace    unix  -  -  n  -    0  bounce
flush    unix  n  -  n  1000? 0 flush
proxymap unix  -  -  n  -    -  proxymap
lmtp     unix  -  -  n  -    -  lmtp
virtual  unix  -  n  n  -    -  virtual
error    unix  -  -  n  -    -  error
retry    unix  -  -  n  -    -  error
discard  unix  -  -  n  -    -  discard
scache   unix  -  -  n  -    1  scache
postlog  unix-dgram n - n -  1  postlogd
"""
"""What these tests reach. `postqueue -f` wakes pickup too, and fails without it. No local(8): no local user
gets mail. No chroot: it would have to be filled first."""

QUEUE_FOLDERS = ("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private")
MESSAGE_FOLDERS = ("incoming", "active", "deferred", "active", "hold", "maildrop")
"""Where a message can be, in the order in which it moves; `active` again, because the queue manager
moves deferred mail back there."""

BASE_SETTINGS: Mapping[str, str] = {
    "compatibility_level": "3.6",
    "myhostname": "mx.postfix.test",
    "mydomain": "postfix.test",
    "myorigin": "$myhostname",
    "mydestination": "",
    "mynetworks": "",
    "inet_interfaces": "127.0.0.1",
    "inet_protocols": "ipv4",
    "alias_maps": "",
    "alias_database": "",
    "biff": "no",
    "append_dot_mydomain": "no",
    "smtpd_relay_restrictions": "reject_unauth_destination",
    "fast_flush_domains": "",
    # No test waits for DNS, for a rate limit or for a tarpit.
    "smtpd_peername_lookup": "no",
    "smtp_dns_support_level": "disabled",
    "lmtp_dns_support_level": "disabled",
    "smtpd_error_sleep_time": "0s",
    "smtpd_soft_error_limit": "100000",
    "smtpd_hard_error_limit": "100000",
    "smtpd_client_connection_count_limit": "0",
    "smtpd_client_connection_rate_limit": "0",
    "in_flow_delay": "0s",
    # Deferred mail is tried again while the test still looks.
    "queue_run_delay": "2s",
    "minimal_backoff_time": "2s",
    "maximal_backoff_time": "4s",
    "transport_retry_time": "1s",
}

EXAMPLES = Path(__file__).parent.parent.parent / "postfix"
"""The complete configurations of this repository, a folder each with main.cf and master.cf."""

IN_EXAMPLES = (
    "inet_interfaces inet_protocols alias_maps alias_database fast_flush_domains smtpd_peername_lookup "
    "smtp_dns_support_level lmtp_dns_support_level smtpd_error_sleep_time smtpd_soft_error_limit "
    "smtpd_hard_error_limit smtpd_client_connection_count_limit smtpd_client_connection_rate_limit "
    "in_flow_delay queue_run_delay minimal_backoff_time maximal_backoff_time transport_retry_time"
).split()
"""What of `BASE_SETTINGS` an example gets too: it talks to loopback only, knows nothing of this machine's
aliases, asks no DNS, and does not wait. Who may send, and all tables, stay as in the example."""
