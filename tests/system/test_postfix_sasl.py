"""SMTP AUTH by the real Postfix, as postfix/lmtp has it: submission asks mailmaps' auth socket.

Submissions (port 465) asks through Cyrus SASL here, as the how-to does, with mailmaps in saslauthd's place.
"""

from __future__ import annotations

import asyncio
import base64
import smtplib
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
import pytest_asyncio
from tests.conftest import new_database
from tests.system.lmtp_sink import LmtpSink
from tests.system.login_site import ANNA, BERT, BROKEN, GONE, JAN, NO_IMAP, NO_SMTP, SECRET, LoginSite, insert
from tests.system.postfix import SEARCH_PATH, PrivatePostfix
from tests.system.processes import eventually

from mailmaps.demo.postgres import EmbeddedPostgres

pytestmark = pytest.mark.postfix
in_module = pytest.mark.asyncio(loop_scope="module")

OUTSIDE = "somebody@outside.test"

# The how-to's, word for word.
SMTPD_CONF = "pwcheck_method: saslauthd\nsaslauthd_path: /etc/mux\nmech_list: login plain\n"

CYRUS = {
    "submissions/inet/smtpd_sasl_type": "cyrus",
    "submissions/inet/smtpd_sasl_path": "smtpd",
    "submissions/inet/smtpd_sasl_local_domain": "lxtreme.nl",
}

DEFAULT_PORTS = {
    "transport_maps": 17011,
    "virtual_mailbox_domains": 17012,
    "virtual_alias_maps": 17013,
    "virtual_mailbox_maps": 17014,
    "smtpd_sender_login_maps": 17017,
    "policy": 17018,
}


def use_cyrus(postfix: PrivatePostfix) -> None:
    """Submissions by Cyrus SASL; Debian 12's looks beside main.cf, Debian 13's where it is told."""
    (postfix.folder / "sasl").mkdir(mode=0o755)
    (postfix.folder / "sasl" / "smtpd.conf").write_text(SMTPD_CONF)
    postfix.settings["cyrus_sasl_config_path"] = str(postfix.folder / "sasl")
    postfix.options = CYRUS


def link_mux(postfix: PrivatePostfix) -> None:
    """As docs/howto-then-and-now.md says, for the how-to's smtpd.conf and a chrooted smtpd."""
    etc = postfix.folder / "queue" / "etc"
    etc.mkdir(mode=0o755)
    (etc / "mux").symlink_to("../mailmaps/mux")


@dataclass(frozen=True)
class Mail:
    """A Postfix and the daemon that it asks."""

    postfix: PrivatePostfix
    logins: LoginSite
    outside: LmtpSink

    def submission(self) -> smtplib.SMTP:
        """A session on port 587, with TLS."""
        client = smtplib.SMTP("127.0.0.1", self.postfix.submission_port, "client.test", timeout=60)
        client.starttls(context=anybody())
        client.ehlo()
        return client

    def submissions(self) -> smtplib.SMTP:
        """A session on port 465."""
        port = self.postfix.submissions_port
        client = smtplib.SMTP_SSL("127.0.0.1", port, "client.test", timeout=60, context=anybody())
        client.ehlo()
        return client

    def session(self, door: str) -> smtplib.SMTP:
        return self.submission() if door == "dovecot" else self.submissions()


def anybody() -> ssl.SSLContext:
    """The certificate is the test's own."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def mail(postgres: EmbeddedPostgres, template: str, outside: LmtpSink) -> AsyncIterator[Mail]:
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(new_database(postgres, f"TEMPLATE {template}"))
        await insert(database.connection)
        await database.connection.execute(
            "UPDATE mailmaps.settings SET login_realm = 'lxtreme.nl', login_addresses = true"
        )
        postfix = PrivatePostfix.from_example("lmtp", settings={"default_transport": outside.nexthop})
        doors = {"group": "postfix"}
        site = LoginSite(
            database.reader_dsn,
            database.auth_dsn,
            {"dovecot_auth": doors, "saslauthd": doors},
            postfix.folder / "queue",
        )
        stack.callback(site.close)
        ports = {
            f"127.0.0.1:{port}": f"127.0.0.1:{site.daemon.ports[name]}"
            for name, port in DEFAULT_PORTS.items()
        }
        postfix.move(ports)
        use_cyrus(postfix)
        await stack.enter_async_context(postfix)
        link_mux(postfix)
        await asyncio.to_thread(site.daemon.start)
        yield Mail(postfix, site, outside)


def auth(
    client: smtplib.SMTP, user: str, password: str, mechanism: str = "PLAIN", initial: bool = True
) -> int:
    """Say AUTH; the code of the reply."""

    def object_of(challenge: bytes | None = None) -> str | None:
        if mechanism == "PLAIN":
            return f"\0{user}\0{password}"
        if challenge is None:
            return user
        return user if challenge.lower().startswith(b"user") else password

    try:
        code, _ = client.auth(mechanism, object_of, initial_response_ok=initial)  # type: ignore[arg-type]
    except smtplib.SMTPAuthenticationError as error:
        return error.smtp_code
    return code


@pytest.mark.parametrize("door", ["dovecot", "cyrus"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("initial", [True, False])
def test_each_mechanism_with_and_without_initial_response(
    mail: Mail, door: str, mechanism: str, initial: bool
) -> None:
    with mail.session(door) as client:
        assert auth(client, JAN.username, "wrong", mechanism, initial) == 535
        assert auth(client, JAN.username, SECRET, mechanism, initial) == 235


@pytest.mark.parametrize("door", ["dovecot", "cyrus"])
@pytest.mark.parametrize(
    ("user", "password", "code"),
    [
        (JAN.username, SECRET, 235),
        ("janwillem.janssen@lxtreme.nl", SECRET, 235),
        ("J.W.Janssen@LXtreme.nl", SECRET, 235),
        (ANNA.username, SECRET, 235),
        (BERT.username, SECRET, 235),
        (NO_IMAP.username, SECRET, 235),
        (JAN.username, "wrong", 535),
        ("nobody", SECRET, 535),
        ("jawi_lx@other.example", SECRET, 535),
        (GONE.username, SECRET, 535),
        (NO_SMTP.username, SECRET, 535),
        (BROKEN.username, SECRET, 454),
    ],
)
def test_every_result(mail: Mail, door: str, user: str, password: str, code: int) -> None:
    with mail.session(door) as client:
        assert auth(client, user, password) == code


def test_nobody_is_asked_for_a_password_without_tls_or_on_port_25(mail: Mail) -> None:
    with smtplib.SMTP("127.0.0.1", mail.postfix.submission_port, "client.test", timeout=60) as client:
        client.ehlo()
        assert not client.has_extn("auth")
        assert client.has_extn("starttls")
    with smtplib.SMTP("127.0.0.1", mail.postfix.port, "client.test", timeout=60) as client:
        client.starttls(context=anybody())
        client.ehlo()
        assert not client.has_extn("auth")
    with mail.submissions() as client:
        assert client.has_extn("auth")


@in_module
@pytest.mark.parametrize("door", ["dovecot", "cyrus"])
async def test_relay_after_auth_and_not_before(mail: Mail, door: str) -> None:
    before = len(mail.outside.deliveries)

    def talk() -> None:
        with mail.session(door) as client:
            client.mail(ANNA.email)
            assert client.rcpt(OUTSIDE)[0] in (554, 530, 553)
            client.rset()
            assert auth(client, ANNA.username, SECRET) == 235
            client.sendmail(ANNA.email, [OUTSIDE], "Subject: hello\n\nfrom anywhere\n")

    await asyncio.to_thread(talk)
    await mail.postfix.drained()
    assert len(mail.outside.deliveries) == before + 1


@pytest.mark.parametrize(
    ("door", "login"),
    [
        ("dovecot", JAN.username),
        ("dovecot", "postmaster@lxtreme.nl"),
        ("cyrus", JAN.username),  # is jawi_lx@lxtreme.nl to Postfix
        ("cyrus", "Postmaster@lxtreme.nl"),
    ],
)
def test_whoever_spells_his_login_some_way_sends_as_himself_and_nobody_else(
    mail: Mail, door: str, login: str
) -> None:
    with mail.session(door) as client:
        assert auth(client, login, SECRET) == 235
        for sender, codes in (
            ("janwillem.janssen@lxtreme.nl", (250,)),
            ("postmaster@lxtreme.nl", (250,)),
            (ANNA.email, (553,)),
            (GONE.email, (553,)),
        ):
            client.rset()
            client.mail(sender)
            assert client.rcpt(OUTSIDE)[0] in codes, sender


def test_the_user_reads_what_he_may_not(mail: Mail) -> None:
    with mail.submission() as client:
        assert auth(client, "Postmaster@lxtreme.nl", SECRET) == 235
        client.mail(ANNA.email)
        code, text = client.rcpt(OUTSIDE)
    assert code == 553
    assert b"You are logged in as jawi_lx, which may not send as anna@lxtreme.nl." in text


def test_addresses_are_whole_and_who_claims_one_of_ours_on_port_25_is_noted(mail: Mail) -> None:
    with smtplib.SMTP("127.0.0.1", mail.postfix.port, "client.test", timeout=60) as client:
        client.ehlo()
        for sender, recipient, code in (
            (ANNA.email, BERT.email, 250),
            ("somebody@machine", BERT.email, 504),
            ("somebody@outside.test", OUTSIDE, 554),
        ):
            client.rset()
            client.mail(sender)
            assert client.rcpt(recipient)[0] == code, (sender, recipient)
        client.rset()
        client.mail("somebody@outside.test")
        assert client.rcpt("postmaster")[0] != 504
    with mail.submission() as client:
        assert auth(client, BERT.username, SECRET) == 235
        client.mail(BERT.email)
        assert client.rcpt("anna@lxtreme")[0] == 504
    noted = f'sender would be refused login="" sender={ANNA.email}'
    assert eventually(lambda: noted in mail.logins.daemon.log(), 30)


@in_module
async def test_a_restart_of_the_daemon_costs_an_open_session_one_454(mail: Mail) -> None:
    def talk() -> list[int]:
        with mail.submission() as client:
            codes = [auth(client, JAN.username, "wrong")]
            mail.logins.daemon.stop()
            codes.append(auth(client, JAN.username, SECRET))
            mail.logins.daemon.start()
            codes.append(auth(client, JAN.username, SECRET))
            return codes

    codes = await asyncio.to_thread(talk)
    assert codes[0] == 535
    assert codes[1] == 454
    assert codes[2] in (235, 454)
    with mail.submission() as client:
        assert auth(client, JAN.username, SECRET) == 235


def test_testsaslauthd(mail: Mail) -> None:
    """Debian's own client of the mux socket."""

    def ask(user: str, password: str, realm: str = "") -> int:
        words = ["testsaslauthd", "-u", user, "-p", password, "-s", "smtp", "-f", str(mail.logins.mux)]
        words += ["-r", realm] if realm else []
        done = subprocess.run(words, capture_output=True, check=False, timeout=60, env={"PATH": SEARCH_PATH})
        return done.returncode

    assert ask(JAN.username, SECRET) == 0
    assert ask(JAN.username, SECRET, "lxtreme.nl") == 0
    assert ask(JAN.username, "wrong") != 0
    assert ask(JAN.username, SECRET, "other.example") != 0


def test_no_secret_is_in_any_log(mail: Mail) -> None:
    """After all of the above: the last test of this file."""
    encoded = base64.b64encode(f"\0{JAN.username}\0{SECRET}".encode()).decode()
    for text in (mail.postfix.log(), mail.logins.daemon.log()):
        for secret in (SECRET, encoded, base64.b64encode(SECRET.encode()).decode()):
            assert secret not in text
