"""Hands one mail to an SMTP server, by aiosmtplib, and says of a failure whether it may pass.

The rule it keeps: the envelope sender is `<>` (RFC 5321, 4.5.5: a notification must not be answered by
another), so whatever becomes of the mail, nothing comes back. Nobody logs in. `tls = "no"` does not even try
STARTTLS, which aiosmtplib does by default when it is offered (SMTP._maybe_start_tls_on_connect): Postfix's
certificate is hardly ever one for 127.0.0.1.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from email.message import EmailMessage

import aiosmtplib

from mailmaps.config.policy import Notices
from mailmaps.notices.message import needs_smtputf8
from mailmaps.policy.texts import shown

# Seconds for each reply. Postfix answers within 1 s unless it is stuck; nobody waits for this but a task.
PATIENCE = 30.0

# Seconds for the reply to QUIT, when all is done.
QUIT_PATIENCE = 2.0


class NoticeError(Exception):
    """The mail was not taken; the text says why. `temporary`: it may be taken later."""

    def __init__(self, message: str, temporary: bool) -> None:
        super().__init__(message)
        self.temporary = temporary


async def hand_over(message: EmailMessage, settings: Notices, host_name: str) -> str:
    """The server's reply to the message. Raises `NoticeError`.

    Only what the server refuses for good (5xx), and what no server could take, is permanent.
    """
    try:
        return await _talk(message, settings, host_name)
    except aiosmtplib.SMTPRecipientsRefused as error:
        raise _refused(error.recipients[0], settings) from error
    except aiosmtplib.SMTPResponseException as error:
        raise _refused(error, settings) from error
    except (
        aiosmtplib.SMTPNotSupported
    ) as error:  # an address that is not ASCII, and a server without SMTPUTF8
        raise NoticeError(f"{settings.smtp}: {error}", temporary=False) from error
    except (aiosmtplib.SMTPException, OSError) as error:
        raise NoticeError(f"{settings.smtp}: {shown(_why(error))}", temporary=True) from error
    except ValueError as error:  # a name that cannot be said in SMTP, or not be looked up (UnicodeError)
        raise NoticeError(f"{settings.smtp}: {shown(str(error))}", temporary=False) from error


async def _talk(message: EmailMessage, settings: Notices, host_name: str) -> str:
    host, _, port = settings.smtp.rpartition(":")
    client = aiosmtplib.SMTP(
        hostname=host.strip("[]"),
        port=int(port),
        local_hostname=host_name,
        timeout=PATIENCE,
        use_tls=settings.tls == "tls",
        start_tls=settings.tls == "starttls",
    )
    to = message["To"].addresses[0].addr_spec
    options = ["BODY=8BITMIME", "SMTPUTF8"] if needs_smtputf8(message) else []
    try:
        await client.connect()
        try:
            _, reply = await client.sendmail("", [to], message.as_bytes(), mail_options=options)
        except (aiosmtplib.SMTPRecipientsRefused, aiosmtplib.SMTPResponseException):
            await _quit(client)
            raise
        await _quit(client)
    finally:
        client.close()
    return reply


async def _quit(client: aiosmtplib.SMTP) -> None:
    """Say goodbye; the mail's fate is known, whatever comes of this."""
    with suppress(aiosmtplib.SMTPException, OSError):
        await client.quit(timeout=QUIT_PATIENCE)


def _why(error: Exception) -> str:
    """What went wrong, without the words around it that aiosmtplib has for all of them."""
    for link in (error.__cause__, error):
        if isinstance(link, ssl.SSLCertVerificationError):
            return f"certificate verify failed: {link.verify_message}"
        if link is not None and str(link):
            return str(link)
    return type(error).__name__


def _refused(error: aiosmtplib.SMTPResponseException, settings: Notices) -> NoticeError:
    said = f"{error.code} {error.message}" if error.code > 0 else str(error.message)
    return NoticeError(f"{settings.smtp} said: {shown(said)}", temporary=not 500 <= error.code <= 599)
