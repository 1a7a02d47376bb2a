"""Which keys each table is asked."""

from __future__ import annotations

from pathlib import Path

from mailmaps.migration import keys


def test_each_table_is_asked_what_postfix_asks_it(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# people\na@one.test\n  b@two.test \n\na@one.test\nthree.test\n")
    found = keys.from_file(file)
    found.hosts["192.0.2.1"] = None
    people = ["a@one.test", "b@two.test", "three.test"]
    assert found.of_table("virtual_alias_maps") == people
    assert found.of_table("transport_maps") == [*people, "*"]
    assert found.of_table("check_sender_access") == [*people, "<>"]
    assert found.of_table("virtual_mailbox_domains") == ["one.test", "two.test", "three.test"]
    assert found.of_table("check_client_access") == ["192.0.2.1", "three.test"]
    assert found.of_table("mynetworks") == ["192.0.2.1", "three.test"]


def test_keys_with_an_extension() -> None:
    assert keys.with_extension(["a@b.c", '"x y"@b.c'], "+-") == ["a+mailmaps@b.c"]
    assert keys.with_extension(["a@b.c"], "") == []
