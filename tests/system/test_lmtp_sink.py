"""The sink itself: it takes what no mail library would, and says whom it refuses."""

from __future__ import annotations

import asyncio

from tests.system.lmtp_sink import LmtpSink

STRANGE = ("a@b@c.test", '"a>b \\"c"@c.test', "jöß@c.test", "x" * 2000 + "@c.test")


async def _dialog(port: int, *lines: str) -> list[str]:
    """Say all lines at once, as a client that pipelines does; every line of the replies."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write("".join(f"{line}\r\n" for line in (*lines, "QUIT")).encode())
    replies = (await reader.read()).decode().splitlines()
    writer.close()
    await writer.wait_closed()
    return replies


async def test_addresses_are_kept_as_they_came() -> None:
    async with LmtpSink() as sink:
        commands = [f"RCPT TO:<{address}> ORCPT=rfc822;x" for address in STRANGE]
        await _dialog(sink.port, "LHLO me", "MAIL FROM:<s@t.test> SMTPUTF8", *commands, "DATA", "x", ".")
        assert [delivery.recipient for delivery in sink.deliveries] == list(STRANGE)
        assert {(delivery.sender, delivery.smtputf8) for delivery in sink.deliveries} == {("s@t.test", True)}


async def test_each_recipient_has_a_reply_of_its_own() -> None:
    async with LmtpSink() as sink:
        sink.answers["later@t.test"] = "451 4.3.0 later"
        recipients = ("RCPT TO:<now@t.test>", "RCPT TO:<later@t.test>")
        replies = await _dialog(
            sink.port, "MAIL FROM:<>", *recipients, "DATA", "X-Probe: 1", "", "..dot", ".", "NOOP"
        )
        assert replies[-4:] == ["250 2.0.0 taken", "451 4.3.0 later", "250 2.0.0 ok", "221 2.0.0 bye"]
        assert sink.by_header("x-probe") == {"1": ["now@t.test"]}
        assert sink.deliveries[0].body == b"X-Probe: 1\r\n\r\n.dot\r\n"


async def test_an_unfinished_message_is_nobodys() -> None:
    async with LmtpSink() as sink:
        reader, writer = await asyncio.open_connection("127.0.0.1", sink.port)
        writer.write(b"MAIL FROM:<>\r\nRCPT TO:<a@t.test>\r\nDATA\r\nhalf a mess")
        await reader.readuntil(b"354 go on\r\n")
        writer.close()
        await writer.wait_closed()
        assert sink.deliveries == []
