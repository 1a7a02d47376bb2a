"""Lines as Postfix logs them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from mailmaps.migration import keys, maillog

HEAD = "Nov  9 12:00:00 mx postfix/"


@pytest.mark.parametrize(
    ("line", "addresses", "hosts"),
    [
        ("smtp[1]: 4X: to=<a@ex.test>, orig_to=<b+x@ex.test>, relay=h[192.0.2.1]:25, status=sent (to=<c>)",
         ["a@ex.test", "b+x@ex.test", "c"], []),
        ("qmgr[1]: 4X: from=<s@ex.test>, size=1, nrcpt=1 (queue active)", ["s@ex.test"], []),
        ("qmgr[1]: 4X: from=<>, size=1, nrcpt=1 (queue active)", [""], []),
        ("smtpd[1]: NOQUEUE: reject: RCPT from mx.test[192.0.2.7]: 550 5.1.1 <n@ex.test>: Recipient address "
         "rejected: User unknown; from=<s@ex.test> to=<n@ex.test> proto=ESMTP helo=<mx.test>",
         ["s@ex.test", "n@ex.test"], ["mx.test", "192.0.2.7", "mx.test"]),
        ('smtpd[1]: NOQUEUE: RCPT from unknown[2001:db8::1]: 450; from=<> to=<"a b>c"@ex.test> helo=<x>',
         ["", '"a b>c"@ex.test'], ["2001:db8::1", "x"]),
        ('local[1]: 4X: to=<"a\\"b>"@ex.test>, relay=local', ['"a\\"b>"@ex.test'], []),
        ('lmtp[1]: 4X: to=<"no end@ex.test>, relay=x', ['"no end@ex.test'], []),
        ("smtp[1]: 4X: to=<from=<x>@ex.test>, relay=none", ["from=<x"], []),
        ("smtpd[1]: connect from unknown[192.0.2.9]", [], ["192.0.2.9"]),
        ("smtpd[1]: 4X: client=mx.test[192.0.2.7], sasl_username=u@ex.test", [], ["mx.test", "192.0.2.7"]),
        ("cleanup[1]: 4X: message-id=<x@ex.test>", [], []),
        ("pickup[1]: 4X: uid=0 from=<root>", ["root"], []),
    ],
)  # fmt: skip
def test_read_line(line: str, addresses: list[str], hosts: list[str]) -> None:
    assert maillog.read_line(HEAD + line) == (addresses, hosts)


@pytest.mark.parametrize("name", ["mail.log", "mail.log.2.gz"])
def test_keys_come_once_and_in_external_form(tmp_path: Path, name: str) -> None:
    text = (
        f"{HEAD}lmtp[1]: 4X: to=<a b@ex.test>, orig_to=<x@ex.test>, relay=x\n"
        f'{HEAD}lmtp[1]: 4Y: to=<"a b"@ex.test>, relay=x\n'
        f"{HEAD}qmgr[1]: 4X: from=<>, size=1\n{HEAD}qmgr[1]: 4X: from=<root>, size=1\n"
        f"{HEAD}lmtp[1]: 4Y: to=<\udcff@ex.test>, relay=x\n{HEAD}smtpd[1]: connect from h.test[192.0.2.9]\n"
    )
    path = tmp_path / name
    raw = text.encode(errors="surrogateescape")
    path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    found = keys.from_maillog(path)
    assert list(found.addresses) == ['"a b"@ex.test', "x@ex.test", "\udcff@ex.test"]
    assert list(found.bare) == ["root"]
    assert list(found.hosts) == ["h.test", "192.0.2.9"]
