"""What is counted, from lines as Postfix and Dovecot write them."""

from __future__ import annotations

import tracemalloc

import pytest
from tests.report.lines import mail, outcome, tally_of

from mailmaps.report.messages import Messages
from mailmaps.report.period import Period
from mailmaps.report.top import KEPT, Top


def test_a_mail_is_received_once_and_delivered_to_each_recipient() -> None:
    tally = tally_of(
        mail(
            login="jan",
            outcomes=[outcome(), outcome("c@ours.test", program="virtual", asked="info@ours.test")],
        )
    )
    assert (tally.received, tally.delivered, tally.delivered_bytes) == (1, 2, 2000)
    assert tally.users["jan"] == [1, 2, 1000]
    assert tally.domains_here["ours.test"] == [1, 1000]
    assert tally.domains_elsewhere["far.test"] == [1, 1000]
    assert tally.messages.open() == {}


def test_a_deferred_recipient_counts_once_for_a_reason_and_each_try() -> None:
    refused = outcome(status="deferred", reason="connect to mx.far.test[192.0.2.1]:25: Connection refused")
    again = "postfix/qmgr[3]: 4ABCDEF: from=<a@ours.test>, size=1000, nrcpt=1 (queue active)"
    full = outcome(status="deferred", reason="host x.y[192.0.2.7] said: 452 4.2.2 full")
    tally = tally_of([*mail(outcomes=[refused])[:-1], again, refused, again, full])
    assert tally.received == 1
    assert tally.deferred_reasons["connect to HOST: Connection refused"] == [1, 2]
    assert tally.deferred_reasons["host HOST said: 452 4.2.2 full"] == [1, 1]
    [message] = tally.messages.open().values()
    assert message.is_in_queue
    assert message.waiting == {"b@far.test": "host HOST said: 452 4.2.2 full"}


@pytest.mark.parametrize("recipient", ["b@far.test", '"b@far.test'])
def test_a_line_that_postfix_cut_counts(recipient: str) -> None:
    """Another host's long reply: Postfix logs 2000 bytes of a line, without the last `)`."""
    said = "host mx.far.test[192.0.2.1] said: 550-5.7.1 " + "a long story (with more) " * 100
    whole = outcome(recipient, "bounced", said)
    begin, text = whole.split("]: ", 1)
    tally = tally_of(mail(outcomes=[f"{begin}]: {text[:2000]}"]))
    assert len(text) > 2000
    assert (tally.bounced_reasons.totals, list(tally.bounced_domains)) == ([1], ["far.test"])
    assert tally.messages.open() == {}


def test_the_parenthesis_at_the_end_is_none_of_the_reason() -> None:
    tally = tally_of(mail(outcomes=[outcome(status="bounced", reason="unknown (really)")]))
    assert list(tally.bounced_reasons) == ["unknown (really)"]


def test_an_old_mail_is_not_received_again_when_it_is_tried() -> None:
    lines = mail(outcomes=[outcome()])[2:]
    tally = tally_of(lines)
    assert (tally.received, tally.delivered, tally.unsized) == (0, 1, 0)


def test_what_came_before_the_period_is_delivered_in_it_with_its_size() -> None:
    lines = mail(outcomes=[outcome()], login="jan", size=777)
    reader = tally_of([])  # the period is the whole day; the mail came an hour before
    over = Period(reader.period.start + 43200, reader.period.end, (reader.period.start + 43200,), True)
    tally = tally_of([f"11:30:00 {line}" for line in lines[:3]] + lines[3:], over)
    assert (tally.received, tally.delivered, tally.delivered_bytes) == (0, 1, 777)
    assert tally.lines == 2


def test_a_queue_id_that_comes_again_is_another_mail() -> None:
    one = mail(outcomes=[outcome()])
    assert tally_of(one * 3).received == 3
    assert tally_of(one[:-1] * 3).received == 3, "even when `removed` is missing"


def test_two_instances_have_ids_of_their_own() -> None:
    one = mail(outcomes=[outcome()])[:-1]
    other = [line.replace("postfix/", "postfix-out/") for line in one]
    mixed = [line for pair in zip(one, other, strict=True) for line in pair]
    tally = tally_of(mixed)
    assert (tally.received, tally.delivered, len(tally.messages.open())) == (2, 2, 2)


def test_a_service_with_a_name_of_its_own_is_of_the_same_instance() -> None:
    first, *rest = mail(login="jan", outcomes=[outcome()])
    tally = tally_of([first.replace("postfix/smtpd", "postfix/submission/smtpd"), *rest])
    assert tally.users["jan"] == [1, 1, 1000]


def filtered(message_id: str) -> list[str]:
    """A mail through a content filter: FIRST to the filter, SECOND from it."""
    first = mail("4FIRST", outcomes=[], login="jan", message_id="m")
    second = mail(
        "4SECOND",
        outcomes=[outcome(queue_id="4SECOND")],
        message_id=message_id,
        client="localhost[127.0.0.1]",
    )
    handed = outcome(
        queue_id="4FIRST",
        relay="127.0.0.1[127.0.0.1]:10024",
        reason="250 2.0.0 from MTA(smtp:[127.0.0.1]:10025): 250 2.0.0 Ok: queued as 4SECOND",
    )
    return [*first[:-1], *second, handed, first[-1]]


def test_a_mail_through_a_filter_counts_once() -> None:
    tally = tally_of(filtered("m"))
    assert (tally.received, tally.received_bytes, tally.delivered, tally.passed) == (1, 1000, 1, 1)
    assert tally.users["jan"] == [1, 1, 1000]
    assert sum(slot[0] for slot in tally.slots) == 1


def test_a_server_elsewhere_cannot_name_an_id_of_ours() -> None:
    tally = tally_of(filtered("another"))
    assert (tally.received, tally.delivered, tally.passed) == (2, 2, 0)


def test_a_forward_of_local_counts_once() -> None:
    first = mail("4FIRST", outcomes=[])
    second = mail("4SECOND", outcomes=[outcome(queue_id="4SECOND")])[1:]
    forwarded = outcome("x@ours.test", reason="forwarded as 4SECOND", queue_id="4FIRST", program="local")
    for lines in ([*first[:-1], forwarded, *second], [*first[:-1], *second, forwarded]):
        tally = tally_of(lines)
        assert (tally.received, tally.delivered, tally.passed) == (1, 1, 1)


def test_a_requeued_mail_is_not_received_again() -> None:
    lines = [
        *mail("4FIRST")[:-1],
        "postfix/postsuper[9]: 4FIRST: requeued",
        "postfix/pickup[5]: 4SECOND: uid=89 from=<a@ours.test> orig_id=4FIRST",
        *mail("4SECOND", outcomes=[outcome(queue_id="4SECOND")])[1:],
    ]
    tally = tally_of(lines)
    assert (tally.received, tally.delivered) == (1, 1)


def test_a_probe_is_no_mail() -> None:
    probe = mail(sender="double-bounce@ours.test", outcomes=[outcome(status="deliverable")])[1:]
    tally = tally_of(probe)
    assert (tally.received, tally.delivered, tally.probes) == (0, 0, 1)


def test_a_bounce_and_what_is_sent_about_it() -> None:
    bounced = outcome(status="bounced", reason="host mx[192.0.2.1] said: 550 5.1.1 <b@far.test>: unknown")
    notice = "postfix/bounce[7]: 4ABCDEF: sender non-delivery notification: 4NEWER"
    new = mail("4NEWER", sender="", outcomes=[outcome("a@ours.test", queue_id="4NEWER", program="virtual")])[
        1:
    ]
    tally = tally_of([*mail(outcomes=[bounced])[:-1], notice, *new])
    assert (tally.received, tally.internal, tally.delivered) == (2, 1, 1)
    assert tally.bounced_reasons["host HOST said: 550 5.1.1 <...>: unknown"] == [1]
    assert tally.bounced_domains["far.test"] == [1]
    assert tally.notices["sender non-delivery notification"] == [1]


@pytest.mark.parametrize(
    ("line", "reason", "client"),
    [
        (
            "NOQUEUE: reject: RCPT from unknown[192.0.2.6]: 554 5.7.1 <x@y>: Relay access denied; from=<s@z> "
            "to=<x@y> proto=ESMTP helo=<h>",
            "RCPT: 554 5.7.1 <...>: Relay access denied",
            "192.0.2.6",
        ),
        (
            "NOQUEUE: reject: RCPT from a.b[2001:db8::1]: 554 5.7.1 Service "
            "unavailable; Client host [2001:db8::1] "
            "blocked using zen.spamhaus.org; https://x.y/2001:db8::1; from=<s@z> "
            "to=<x@y> proto=SMTP helo=<h>",
            "RCPT: 554 5.7.1 Service unavailable; Client host HOST blocked using zen.spamhaus.org; URL",
            "2001:db8::1",
        ),
        (
            "4ABCDEF: milter-reject: END-OF-MESSAGE from a[192.0.2.6]: 5.7.1 Spam; "
            "from=<s@z> to=<x@y> proto=ESMTP",
            "END-OF-MESSAGE: 5.7.1 Spam",
            "192.0.2.6",
        ),
        (
            "4ABCDEF: reject: header Subject: buy <b>now</b> from a[192.0.2.6]; "
            "from=<s@z> to=<x@y> proto=ESMTP "
            "helo=<h>: 5.7.1 no thanks",
            "header: header: 5.7.1 no thanks",
            "",
        ),
    ],
)
def test_refusals(line: str, reason: str, client: str) -> None:
    program = "cleanup" if "header" in line or "milter" in line else "smtpd"
    tally = tally_of([f"postfix/{program}[1]: {line}"])
    assert dict(tally.refused_reasons.most(5)) == {reason: [1]}
    assert [key for key, _ in tally.refused_clients.most(5)] == ([client] if client else [])


def test_held_mail_is_in_the_queue_and_tells_of_the_limit() -> None:
    hold = (
        "postfix/smtpd[1]: 4ABCDEF: hold: DATA from a[192.0.2.6]: <DATA>: Data "
        "command jan has reached its limit of "
        "5 recipients an hour; try again later.; from=<s@z> proto=ESMTP helo=<h>"
    )
    lines = mail(login="jan")
    tally = tally_of([lines[0], hold, lines[1]])
    assert tally.limits["jan"] == [1, 0]
    assert tally.limit_of == {"jan": "5 recipients an hour"}
    assert [message.is_in_queue for message in tally.messages.open().values()] == [True]
    assert tally.refused_reasons.totals == [0]
    release = "postfix/postsuper[1]: 4ABCDEF: released from hold"
    released = tally_of([lines[0], hold, lines[1], release, *lines[2:]])
    assert (released.received, len(released.messages.open())) == (1, 0)


def test_a_client_that_breaks_off_leaves_nothing_in_the_queue() -> None:
    tally = tally_of(mail()[:1])
    assert [message.is_in_queue for message in tally.messages.open().values()] == [False]
    assert tally.received == 0


def test_logins_of_dovecot_and_postfix() -> None:
    tally = tally_of(
        [
            "dovecot: imap-login: Login: user=<jan>, method=PLAIN, rip=192.0.2.5, "
            "lip=192.0.2.9, mpid=1, session=<x>",
            "dovecot: pop3-login: Disconnected: Connection closed (auth failed, 3 "
            "attempts in 9 secs): user=<jan>, "
            "method=PLAIN, rip=192.0.2.6, lip=192.0.2.9",
            "dovecot: imap-login: Disconnected (auth failed, 1 attempts in 2 "
            "secs): user=<>, rip=192.0.2.6, lip=x",
            "dovecot: imap-login: Disconnected: Connection closed (no auth "
            "attempts in 0 secs): user=<>, rip=192.0.2.7",
            "postfix/smtpd[1]: warning: x.y[192.0.2.6]: SASL LOGIN authentication "
            "failed: UGFz, sasl_username=root",
            "postfix/smtpd[1]: warning: x.y[192.0.2.6]: SASL LOGIN authentication failed: Connection lost to "
            "authentication server, sasl_username=(unavailable)",
            "mailmaps[1]: mailmaps.auth.service: login door=login service=imap user=anna",
            "mailmaps[1]: mailmaps.auth.service: login rejected door=dovecot_auth service=smtp",
        ]
    )
    assert dict(tally.failed_doors.most(9)) == {"pop3": [3], "imap": [1], "smtp": [1]}
    assert dict(tally.failed_users.most(9)) == {"jan": [3], "(no name)": [1], "root": [1]}
    assert dict(tally.failed_clients.most(9)) == {"192.0.2.6": [5]}
    assert tally.logins.keys() == {"jan", "anna"}
    assert tally.mailmaps_rejections == 1
    assert tally.complaints["warning"].totals == [1], "nobody judged that password"


def test_hostile_addresses_do_not_change_what_a_line_says() -> None:
    tally = tally_of(
        mail(
            outcomes=[outcome('"x>, relay=y, delay=1, delays=1, dsn=2, status=sent (a"@far.test', "bounced")]
        )
    )
    assert (tally.delivered, tally.bounced_domains["far.test"]) == (0, [1])
    odd = tally_of(mail(outcomes=[outcome("b\x1b[31m<script>\u202e@far.test", "bounced", "\x07no\u202e")]))
    for key in (*odd.bounced_domains, *odd.bounced_reasons):
        assert key.isprintable(), key


def test_memory_is_bounded_whatever_the_keys() -> None:
    top = Top()
    for number in range(5 * KEPT):
        top.add(f"key {number}")
        top.add("often")
    assert len(top) <= 2 * KEPT
    assert (top.totals, top["often"], top.forgotten) == ([10 * KEPT], [5 * KEPT], True)
    messages = Messages(most_open=100, most_waiting=50)
    tracemalloc.start()
    for number in range(10_000):
        message = messages.get("mx\tpostfix\t", f"{number:06}", 0)
        messages.defer(message, "b@far.test", "why")
    tracemalloc.stop()
    assert len(messages.open()) == 100
    assert messages.waiting <= 50
    assert messages.forgotten == 9900
