"""The postconf commands there and back, for people and for master.cf's own syntax."""

from __future__ import annotations

from pathlib import Path

from mailmaps.migration import commands
from mailmaps.migration.plan import Change
from mailmaps.postconf import Service

LINE = "submission inet n - n - - smtpd -o a=b -o {smtpd_helo_restrictions=x pgsql:/h} -o smtpd_x=1"
SERVICES = {
    "submission/inet": Service("submission/inet", "smtpd", LINE),
    "virtual/unix": Service("virtual/unix", "virtual", "virtual unix - n n - - virtual"),
}


def change(parameter: str, service: str, old: str | None, new: str) -> Change:
    return Change(parameter, service, old, new, "")


def test_main_cf() -> None:
    changes = [change("a_maps", "", "$x, pgsql:/it's", "tcp:h:1"), change("b_maps", "", None, "tcp:h:2")]
    assert commands.switch(changes, {}) == [("-e", "a_maps=tcp:h:1", "b_maps=tcp:h:2")]
    assert commands.back(changes, {}) == [("-e", "a_maps=$x, pgsql:/it's"), ("-X", "b_maps")]
    assert commands.shell_lines(Path("/etc/postfix"), commands.back(changes, {})) == [
        "postconf -c /etc/postfix -e 'a_maps=$x, pgsql:/it'\"'\"'s'",
        "postconf -c /etc/postfix -X b_maps",
    ]


def test_what_virtual_8_keeps_is_in_force_before_main_cf_changes() -> None:
    changes = [
        change("virtual_mailbox_maps", "", "pgsql:/a, pgsql:/b", "tcp:h:1"),
        change("virtual_mailbox_domains", "", None, "tcp:h:2"),
        change("virtual_mailbox_maps", "virtual/unix", None, "pgsql:/a,pgsql:/b"),
    ]
    assert commands.shell_lines(Path("/etc/postfix"), commands.switch(changes, SERVICES)) == [
        "postconf -c /etc/postfix -P virtual/unix/virtual_mailbox_maps=pgsql:/a,pgsql:/b",
        "if postfix -c /etc/postfix status 2>/dev/null; then postfix -c /etc/postfix reload; fi",
        "postconf -c /etc/postfix -e \\\n    virtual_mailbox_maps=tcp:h:1 \\\n"
        "    virtual_mailbox_domains=tcp:h:2",
    ]
    assert commands.shell_lines(Path("/etc/postfix"), commands.back(changes, SERVICES)) == [
        "postconf -c /etc/postfix -e 'virtual_mailbox_maps=pgsql:/a, pgsql:/b'",
        "postconf -c /etc/postfix -X virtual_mailbox_domains",
        "postconf -c /etc/postfix -PX virtual/unix/virtual_mailbox_maps",
    ]


def test_overrides_without_blanks() -> None:
    changes = [
        change("virtual_mailbox_maps", "virtual/unix", None, "pgsql:/a,pgsql:/b"),
        change("smtpd_x", "submission/inet", "1", "2"),
    ]
    assert commands.switch(changes, SERVICES) == [
        ("-P", "submission/inet/smtpd_x=2"),
        ("-P", "virtual/unix/virtual_mailbox_maps=pgsql:/a,pgsql:/b"),
    ]
    assert commands.back(changes, SERVICES) == [
        ("-P", "submission/inet/smtpd_x=1"),
        ("-PX", "virtual/unix/virtual_mailbox_maps"),
    ]


def test_a_service_with_blanks_in_a_value_is_written_whole() -> None:
    changes = [
        change("smtpd_helo_restrictions", "submission/inet", "x pgsql:/h", "x tcp:h:1"),
        change("smtpd_x", "submission/inet", "1", "2"),
        change("new_one", "submission/inet", None, "3"),
    ]
    assert commands.switch(changes, SERVICES) == [
        (
            "-M",
            "submission/inet=submission inet n - n - - smtpd -o a=b "
            "-o {smtpd_helo_restrictions=x tcp:h:1} -o smtpd_x=2 -o new_one=3",
        )
    ]
    assert commands.back(changes, SERVICES) == [("-M", f"submission/inet={LINE}")]
