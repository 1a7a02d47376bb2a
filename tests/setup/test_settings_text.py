"""What setup writes into mailmaps.toml, and what it never does."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailmaps.config import Settings, SettingsError, parse
from mailmaps.postconf import PostfixValues
from mailmaps.setup import settings_text

PATH = Path("/etc/mailmaps/mailmaps.toml")
DSN = {"dsn": "postgresql://mailreader@127.0.0.1:5433/mail"}
DEBIAN = PostfixValues(
    {"recipient_delimiter": "+", "virtual_mailbox_base": "", "virtual_minimum_uid": 100}, []
)


def test_a_new_file_is_the_documented_one() -> None:
    made = settings_text.draft(PATH, None, DSN, DEBIAN)
    settings = parse(made.new)
    assert settings.database.dsn == DSN["dsn"]
    assert settings.postfix.recipient_delimiter == "+"
    assert made.new.count("\n") == settings_text.shipped().count("\n")
    assert list(made.diff()) == []


def test_mail_lies_where_postfix_says_or_in_var_vmail() -> None:
    """Deliveries go to nobody's uid below that of people by default."""
    assert (
        parse(settings_text.draft(PATH, None, DSN, DEBIAN).new).postfix.virtual_mailbox_base == "/var/vmail"
    )
    assert parse(settings_text.draft(PATH, None, DSN, DEBIAN).new).postfix.virtual_minimum_uid == 5000
    theirs = PostfixValues({"virtual_mailbox_base": "/srv/mail", "virtual_minimum_uid": 2000}, [])
    settings = parse(settings_text.draft(PATH, None, DSN, theirs).new)
    assert (settings.postfix.virtual_mailbox_base, settings.postfix.virtual_minimum_uid) == (
        "/srv/mail",
        2000,
    )


def test_what_we_said_of_delivery_stays_while_postfix_says_nothing() -> None:
    old = '[postfix]\nrecipient_delimiter = "+"\nvirtual_mailbox_base = "/mail"\nvirtual_minimum_uid = 700\n'
    made = settings_text.draft(PATH, f'{old}[database]\ndsn = "{DSN["dsn"]}"\n', DSN, DEBIAN)
    assert not made.changed


def test_dovecot_delivers_so_no_base_is_made_up() -> None:
    old = 'delivery = "lmtp:unix:private/dovecot-lmtp"\n'
    assert parse(settings_text.draft(PATH, old, DSN, DEBIAN).new).postfix.virtual_mailbox_base == ""


def test_without_postfix_the_rest_is_set() -> None:
    settings = parse(settings_text.draft(PATH, "", DSN, None).new)
    assert settings.database.dsn == DSN["dsn"]
    assert settings.postfix.recipient_delimiter == ""


def test_what_somebody_set_is_a_conflict_and_not_shown() -> None:
    settings = parse('[database]\ndsn = "postgresql://me:hidden@db/other"\n')
    (text,) = settings_text.conflicts(settings, DSN)
    assert "database.dsn" in text
    assert "hidden" not in text
    assert settings_text.conflicts(Settings(), DSN) == []
    assert settings_text.conflicts(parse(f'[database]\ndsn = "{DSN["dsn"]}"\n'), DSN) == []


def test_a_broken_file_is_named_and_not_mended() -> None:
    with pytest.raises(SettingsError, match=r"mailmaps\.toml:2"):
        settings_text.draft(PATH, "[database]\nconnections = 0\n", DSN, None)
