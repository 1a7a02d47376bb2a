"""What is in the files, in which order it comes there, and what stays out, whatever changes."""

from __future__ import annotations

import copy
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.filemaps.rows import ALIASES, GIDS, MAILBOXES, QUEUED, UIDS, Files, temporary

from mailmaps.filemaps.fileset import Missing
from mailmaps.filemaps.maps import LmdbMap

pytestmark = pytest.mark.postfix

State = dict[str, dict[str, tuple[str, ...]]]

DOMAINS: State = {
    "virtual_mailbox_domains": {"d.test": ("virtual:",)},
    "transport_maps": {"d.test": ("virtual:",)},
}


def account(state: State, key: str, uid: str = "5001", gid: str = "5001", mailbox: str = "") -> None:
    """An account with one address."""
    state.setdefault(MAILBOXES, {})[key] = (mailbox or f"{key}/",)
    state.setdefault(UIDS, {})[key] = (uid,)
    state.setdefault(GIDS, {})[key] = (gid,)
    state.setdefault(ALIASES, {})[key] = (key,)


def site(*keys: str) -> State:
    state: State = copy.deepcopy(DOMAINS)
    for key in keys:
        account(state, key)
    return state


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    files = Files(tmp_path, most_removed=1.0)
    yield files
    files.set.close()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Files]:
    files = Files(tmp_path)
    yield files
    files.set.close()


def test_everything_is_in_the_files(files: Files) -> None:
    report = files.bring_up(site("a@d.test", "b@d.test"))
    assert files.rows(MAILBOXES) == {"a@d.test": "a@d.test/", "b@d.test": "b@d.test/"}
    assert files.rows(MAILBOXES + QUEUED) == files.rows(MAILBOXES)
    assert files.rows(UIDS) == {"a@d.test": "5001", "b@d.test": "5001"}
    assert files.rows("virtual_mailbox_domains") == {"d.test": "virtual:"}
    assert files.rows("relay_domains") == {}
    assert files.set.named == []
    assert set(report.replaced) == set(files.set.rows)


def test_unchanged_files_are_not_touched(files: Files) -> None:
    files.bring_up(site("a@d.test"))
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files.folder.glob("*.lmdb")}
    assert len(before) == len(files.set.rows)
    assert not files.bring_up(site("a@d.test")).summary()
    assert not files.change(site("a@d.test"), ["a@d.test", "x@d.test"]).summary()
    assert before == {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in before}


@pytest.mark.parametrize(
    ("mailbox", "uid", "gid", "why"),
    [
        ("x/", "4999", "5001", "its uid 4999 is below virtual_minimum_uid"),
        ("x/", "0", "5001", "its uid is 0"),
        ("x/", "-1", "5001", "its uid is no number"),
        ("x/", "5001x", "5001", "its uid is no number"),
        ("x/", "4294967295", "5001", "its uid 4294967295 is too large"),
        ("x/", "5001", "0", "its gid is 0"),
        ("x/", "5001", "4294967295", "its gid 4294967295 is too large"),
        ("x/../y/", "5001", "5001", "its mailbox leads upwards (..)"),
        ("..", "5001", "5001", "its mailbox leads upwards (..)"),
        ("x\ny/", "5001", "5001", "its mailbox has control characters"),
        ("/", "5001", "5001", "its mailbox is virtual_mailbox_base itself"),
        ("x" * 256 + "/", "5001", "5001", "its mailbox has too long a name"),
    ],
)
def test_what_virtual_would_not_deliver_is_neither_accepted_nor_unknown(
    files: Files, mailbox: str, uid: str, gid: str, why: str
) -> None:
    state = site("good@d.test")
    account(state, "bad@d.test", uid, gid, mailbox)
    state[MAILBOXES]["other@d.test"] = state[MAILBOXES]["bad@d.test"]
    state[UIDS]["other@d.test"], state[GIDS]["other@d.test"] = (uid,), (gid,)
    state[ALIASES]["other@d.test"] = ("bad@d.test",)
    files.bring_up(state)
    for name in (MAILBOXES, ALIASES, MAILBOXES + QUEUED):
        assert files.rows(name)["bad@d.test"] == ""
        assert files.rows(name)["other@d.test"] == ""
        assert files.rows(name)["good@d.test"] != ""
    assert files.rows(ALIASES + QUEUED)["bad@d.test"] == files.rows(ALIASES + QUEUED)["other@d.test"]
    assert files.rows(ALIASES + QUEUED)["bad@d.test"] == "bad@d.test", "or a list that has it were stopped"
    assert files.rows(UIDS).keys() == {"good@d.test"}
    assert {(one.key, one.why) for one in files.set.named} == {("bad@d.test", why), ("other@d.test", why)}
    account(state, "bad@d.test")
    files.change(state, ["bad@d.test"])
    assert files.rows(MAILBOXES)["bad@d.test"] == "bad@d.test/"
    assert files.rows(UIDS)["bad@d.test"] == "5001"
    assert [one.key for one in files.set.named] == ["other@d.test"]


def test_a_cdb_has_it_not_and_virtual_defers_it(tmp_path: Path) -> None:
    """No empty value can be in it; and what virtual(8) does not know bounces, if an alias leads there."""
    files = Files(tmp_path, type="cdb")
    state = site("good@d.test", "#odd@d.test")
    account(state, "bad@d.test", uid="33")
    files.bring_up(state)
    assert _in_cdb(tmp_path / MAILBOXES, "good@d.test") == "good@d.test/"
    assert _in_cdb(tmp_path / MAILBOXES, "bad@d.test") is None
    assert _in_cdb(tmp_path / (MAILBOXES + QUEUED), "bad@d.test") == "later/../later/"
    assert _in_cdb(tmp_path / UIDS, "bad@d.test") is None
    assert {one.key for one in files.set.named if one.table == MAILBOXES} == {"#odd@d.test", "bad@d.test"}
    account(state, "bad@d.test")
    files.change(state, ["bad@d.test"])
    assert _in_cdb(tmp_path / MAILBOXES, "bad@d.test") == "bad@d.test/"
    files.set.close()


def _in_cdb(path: Path, key: str) -> str | None:
    done = subprocess.run(["postmap", "-q", key, f"cdb:{path}"], capture_output=True, text=True, check=False)
    assert "fatal" not in done.stderr
    return done.stdout.removesuffix("\n") if done.returncode == 0 else None


def test_what_is_named_is_news_once(files: Files) -> None:
    state = site("a@d.test")
    account(state, "bad@d.test", uid="33")
    files.bring_up(state)
    assert [one.key for one in files.set.take_news()] == ["bad@d.test"]
    files.bring_up(state)
    files.change(state, ["bad@d.test", "a@d.test"])
    assert files.set.take_news() == []
    account(state, "bad@d.test", uid="34")
    files.change(state, ["bad@d.test"])
    assert [one.why for one in files.set.take_news()] == ["its uid 34 is below virtual_minimum_uid"]


def test_a_mailbox_without_uid_waits(files: Files) -> None:
    state = site("a@d.test")
    del state[UIDS]["a@d.test"]
    state[GIDS]["b@d.test"] = ("5001",)
    files.bring_up(state)
    assert files.rows(MAILBOXES) == {"a@d.test": ""}
    assert [one.why for one in files.set.named] == ["it has no uid"]


def test_two_values_are_one_too_many(files: Files) -> None:
    state = site("a@d.test", "b@d.test")
    state[MAILBOXES]["a@d.test"] = ("x/", "y/")
    state[UIDS]["b@d.test"] = ("5001", "5002")
    files.bring_up(state)
    assert files.rows(MAILBOXES) == {"a@d.test": "", "b@d.test": ""}
    assert {one.why for one in files.set.named} == {
        "there are several mailboxes for it",
        "there are several uids for it",
    }


def test_an_inactive_address_does_not_fall_to_the_catch_all(files: Files) -> None:
    state = site("keeper@d.test")
    state[ALIASES] |= {"gone@d.test": (), "@d.test": ("keeper@d.test",)}
    files.bring_up(state)
    assert files.rows(ALIASES)["gone@d.test"] == ""
    assert files.rows(ALIASES + QUEUED)["gone@d.test"] == "gone@d.test", "sendmail(1) gets a bounce"
    assert [one.key for one in files.set.named] == ["gone@d.test"]
    del state[ALIASES]["@d.test"]
    files.change(state, ["@d.test"])
    assert "gone@d.test" not in files.rows(ALIASES), "now it is unknown, as it should be"
    assert files.set.named == []
    state[ALIASES]["@d.test"] = ("keeper@d.test",)
    files.change(state, ["@d.test"])
    assert files.rows(ALIASES)["gone@d.test"] == ""
    state[ALIASES]["gone@d.test"] = ("keeper@d.test",)
    files.change(state, ["gone@d.test"])
    assert files.rows(ALIASES)["gone@d.test"] == "keeper@d.test"


def test_keys_that_postfix_never_asks_are_named(files: Files) -> None:
    state = site("a@d.test")
    odd = ["Upper@d.test", "line\nfeed@d.test", "l" * 511, "Ä@d.test"]
    for key in odd:
        account(state, key)
    files.bring_up(state)
    assert files.rows(MAILBOXES).keys() == {"a@d.test"}
    assert {one.key for one in files.set.named if one.table == MAILBOXES} == set(odd)


def test_values_with_control_characters_wait(files: Files) -> None:
    state = site("a@d.test")
    state[ALIASES]["list@d.test"] = ("a@d.test", "b\tc@d.test")
    files.bring_up(state)
    assert files.rows(ALIASES)["list@d.test"] == ""


def test_removed_rows_linger_where_mail_may_be_on_its_way(files: Files) -> None:
    state = site("a@d.test", "b@d.test")
    state[ALIASES]["list@d.test"] = ("a@d.test",)
    files.bring_up(state)
    left = site("b@d.test")
    files.change(left, ["a@d.test", "list@d.test"])
    assert files.rows(MAILBOXES).keys() == files.rows(ALIASES).keys() == {"b@d.test"}
    assert files.rows(MAILBOXES + QUEUED).keys() == files.rows(UIDS).keys() == {"a@d.test", "b@d.test"}
    assert files.rows(ALIASES + QUEUED).keys() == {"a@d.test", "b@d.test", "list@d.test"}
    files.bring_up(left)
    assert files.rows(MAILBOXES + QUEUED).keys() == {"a@d.test", "b@d.test"}, (
        "a whole reading does not end it"
    )
    assert files.set.removed == 3


def _an_hour_later(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 3700)


@pytest.mark.parametrize("whole", [False, True])
def test_after_a_while_they_go(files: Files, whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    files.bring_up(site("a@d.test", "b@d.test"))
    left = site("b@d.test")
    files.change(left, ["a@d.test"])
    assert files.set.expire().summary() == ""
    files.set.close()
    later = Files(files.folder)  # it has been written down
    _an_hour_later(monkeypatch)
    if whole:
        later.bring_up(left)
    else:
        later.bring_up(left) if not later.set.expire().removed else None
    for name in (MAILBOXES + QUEUED, ALIASES + QUEUED, UIDS, GIDS):
        assert later.rows(name).keys() == {"b@d.test"}
    assert later.set.removed == 0
    later.set.close()


def test_one_that_comes_back_as_it_was_stays(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows in the files never changed; what lingers no longer must not be removed for having lingered."""
    both = site("a@d.test", "b@d.test")
    files.bring_up(both)
    files.change(site("b@d.test"), ["a@d.test"])
    files.change(both, ["a@d.test"])
    _an_hour_later(monkeypatch)
    files.set.expire()
    files.bring_up(both)
    for name in (MAILBOXES + QUEUED, ALIASES + QUEUED, UIDS, GIDS):
        assert files.rows(name).keys() == {"a@d.test", "b@d.test"}


def test_nothing_lingers_in_the_way_of_a_catch_all(files: Files) -> None:
    state = site("keeper@d.test", "a@d.test")
    state[ALIASES] |= {"@d.test": ("keeper@d.test",), "list@d.test": ("a@d.test",)}
    files.bring_up(state)
    del state[ALIASES]["list@d.test"]
    files.change(state, ["list@d.test"])
    assert "list@d.test" not in files.rows(ALIASES + QUEUED)
    del state[ALIASES]["@d.test"], state[ALIASES]["a@d.test"], state[MAILBOXES]["a@d.test"]
    files.change(state, ["@d.test", "a@d.test"])
    assert files.rows(ALIASES + QUEUED).keys() == {"@d.test", "a@d.test", "keeper@d.test"}
    state[ALIASES]["@d.test"] = ("keeper@d.test",)
    files.change(state, ["@d.test"])
    assert files.rows(ALIASES + QUEUED).keys() == {"@d.test", "keeper@d.test"}
    assert "a@d.test" in files.rows(MAILBOXES + QUEUED)


def test_an_alias_that_became_a_mailbox_lingers_no_longer(files: Files) -> None:
    state = site("a@d.test")
    state[ALIASES]["b@d.test"] = ("a@d.test",)
    files.bring_up(state)
    del state[ALIASES]["b@d.test"]
    files.change(state, ["b@d.test"])
    assert files.rows(ALIASES + QUEUED)["b@d.test"] == "a@d.test"
    state[MAILBOXES]["b@d.test"], state[UIDS]["b@d.test"], state[GIDS]["b@d.test"] = ("b/",), ("1",), ("1",)
    state[UIDS]["b@d.test"] = state[GIDS]["b@d.test"] = ("5002",)
    files.change(state, ["b@d.test"])
    assert "b@d.test" not in files.rows(ALIASES + QUEUED)


def many(count: int) -> State:
    return site(*(f"u{number}@d.test" for number in range(count)))


@pytest.mark.parametrize("incremental", [False, True])
def test_too_much_is_not_removed_at_once(guarded: Files, incremental: bool) -> None:
    guarded.bring_up(many(300))
    fewer = many(200)
    account(fewer, "new@d.test")
    gone = [f"u{number}@d.test" for number in range(200, 300)]
    report = guarded.change(fewer, [*gone, "new@d.test"]) if incremental else guarded.bring_up(fewer)
    assert {text.partition(":")[0] for text in report.withheld} == {MAILBOXES, ALIASES}
    assert report.withheld[0].endswith("100 of its 300 keys would go")
    assert len(guarded.rows(MAILBOXES)) == 301, "what is new is taken"
    assert guarded.bring_up(fewer).withheld
    assert not guarded.bring_up(fewer, force=True).withheld
    assert len(guarded.rows(MAILBOXES)) == 201
    assert not guarded.bring_up(fewer).withheld


def test_too_much_does_not_turn_into_later_either(guarded: Files) -> None:
    state = many(100)
    guarded.bring_up(state)
    del state[UIDS]
    assert guarded.bring_up(state).withheld
    assert "" not in guarded.rows(MAILBOXES).values()
    assert guarded.rows(UIDS)["u1@d.test"] == "5001"


@pytest.mark.parametrize("table", ["virtual_mailbox_domains", "relay_domains"])
def test_never_an_empty_file(guarded: Files, table: str) -> None:
    state = site("a@d.test")
    state[table] = {"d.test": ("virtual:",)}
    guarded.bring_up(state)
    del state[table]
    assert guarded.bring_up(state).withheld == [f"{table}: all of its 1 keys would go"]
    assert guarded.rows(table) == {"d.test": "virtual:"}
    assert guarded.change(state, ["d.test"]).withheld
    guarded.bring_up(state, force=True)
    assert guarded.rows(table) == {}


def test_at_first_nothing_is_made_of_nothing(guarded: Files) -> None:
    report = guarded.bring_up({})
    assert report.withheld == [f"{MAILBOXES}: would be empty", "virtual_mailbox_domains: would be empty"]
    assert list(guarded.folder.glob("*.lmdb")) == []
    guarded.bring_up({}, force=True)
    assert guarded.rows(MAILBOXES) == {}


def test_while_something_is_withheld_nothing_ends_by_which_it_is_delivered(
    guarded: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An alias that should have gone is accepted still; then its target is removed, and expires."""
    state = many(10)
    state[ALIASES] |= {f"f{number}@d.test": ("u1@d.test",) for number in range(40)}
    guarded.bring_up(state)
    left = many(10)
    assert guarded.change(left, [f"f{number}@d.test" for number in range(40)]).withheld
    for table in (ALIASES, MAILBOXES, UIDS, GIDS):
        del left[table]["u1@d.test"]
    assert not guarded.change(left, ["u1@d.test"]).withheld
    _an_hour_later(monkeypatch)
    guarded.set.expire()
    guarded.bring_up(left)
    guarded.set.expire()
    assert guarded.rows(ALIASES)["f1@d.test"] == "u1@d.test"
    assert guarded.rows(MAILBOXES + QUEUED)["u1@d.test"] == "u1@d.test/"
    assert guarded.rows(UIDS)["u1@d.test"] == "5001"
    guarded.set.close()
    again = Files(guarded.folder)
    again.set.expire()
    assert "u1@d.test" in again.rows(MAILBOXES + QUEUED), "nor after a restart, before all has been read"
    again.bring_up(left, force=True)
    assert "f1@d.test" not in again.rows(ALIASES)
    assert "u1@d.test" not in again.rows(MAILBOXES + QUEUED)
    again.set.close()


def test_after_a_restart_nothing_lingers_in_the_way_either(guarded: Files) -> None:
    state = many(30)
    state[ALIASES]["list@d.test"] = ("u1@d.test",)
    guarded.bring_up(state)
    del state[ALIASES]["list@d.test"]
    guarded.change(state, ["list@d.test"])
    guarded.set.close()
    fewer = many(10)
    again = Files(guarded.folder)
    assert again.bring_up(fewer).withheld
    assert again.rows(ALIASES + QUEUED)["list@d.test"] == "u1@d.test"
    fewer[ALIASES]["@d.test"] = ("u1@d.test",)
    again.change(fewer, ["@d.test"])
    assert "list@d.test" not in again.rows(ALIASES + QUEUED)
    again.set.close()


def test_few_may_always_go(guarded: Files) -> None:
    guarded.bring_up(many(3))
    report = guarded.bring_up(many(1))
    assert not report.withheld
    moved = many(1)
    moved["virtual_mailbox_domains"] = {"e.test": ("virtual:",)}
    assert not guarded.bring_up(moved).withheld


def test_newer_keys_are_left_alone(files: Files) -> None:
    files.bring_up(site("a@d.test", "b@d.test"))
    files.change(site("b@d.test", "c@d.test"), ["a@d.test", "c@d.test"])
    files.bring_up(site("a@d.test", "b@d.test"), newer=["a@d.test", "c@d.test"])
    assert files.rows(MAILBOXES).keys() == {"b@d.test", "c@d.test"}


def test_a_missing_file_wants_a_whole_reading(files: Files) -> None:
    state = site("a@d.test")
    files.bring_up(state)
    (files.folder / f"{UIDS}.lmdb").unlink()
    with pytest.raises(Missing, match=UIDS):
        files.change(state, ["a@d.test"])
    files.bring_up(state, newer=["a@d.test"])
    assert files.rows(UIDS) == {"a@d.test": "5001"}


def test_a_damaged_file_is_made_anew(files: Files) -> None:
    state = many(200)
    files.bring_up(state)
    path = files.folder / f"{ALIASES}.lmdb"
    files.set.close()
    path.write_bytes(path.read_bytes()[:12288])
    again = Files(files.folder)
    assert again.bring_up(state).replaced == [ALIASES]
    assert len(again.rows(ALIASES)) == 200
    again.set.close()


ORDER = [UIDS, GIDS, MAILBOXES + QUEUED, ALIASES + QUEUED, MAILBOXES, ALIASES, "virtual_mailbox_domains"]


@pytest.mark.parametrize("incremental", [False, True])
def test_what_delivers_comes_first_and_goes_last(
    files: Files, incremental: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.bring_up(site("a@d.test"))
    written: list[str] = []
    change = LmdbMap.change

    def noted(self: LmdbMap, rows: Mapping[bytes, bytes | None]) -> list[bytes]:
        if rows:
            written.append(self.path.name.removesuffix(".lmdb"))
        return change(self, rows)

    monkeypatch.setattr(LmdbMap, "change", noted)
    more = site("a@d.test", "b@d.test")
    more["virtual_mailbox_domains"] = {"d.test": ("virtual:",), "e.test": ("virtual:",)}
    keys = ["b@d.test", "e.test"]
    files.change(more, keys) if incremental else files.bring_up(more)
    assert sorted(written, key=ORDER.index) == [one for one in ORDER if one in written]
    assert _ranks(written) == sorted(_ranks(written))
    assert set(written) == set(ORDER)
    written.clear()
    monkeypatch.setattr(files.set, "_settings", files.settings.filemaps.model_copy(update={"linger": 0.0}))
    files.change(site("a@d.test"), keys) if incremental else files.bring_up(site("a@d.test"))
    assert _ranks(written) == sorted(_ranks(written), reverse=True)
    assert set(written) == set(ORDER)


def _ranks(written: list[str]) -> list[int]:
    return [max(1, ORDER.index(name)) for name in written]


# Whatever changes, one key after the other or all at once, the files say the same.

LOCALS = ["a", "b", "a+x", ""]
KEYS = [f"{local}@{domain}" for local in LOCALS for domain in ("d.test", "e.test")]
VALUES = {
    ALIASES: [(), ("a@d.test",), ("b@e.test", "x@elsewhere.test"), ("bad\x01@d.test",)],
    MAILBOXES: [(), ("x/",), ("../x/",), ("x/", "y/")],
    UIDS: [(), ("5000",), ("5001",), ("33",)],
    GIDS: [(), ("5000",), ("0",)],
}
KEEPER = {MAILBOXES: ("k/",), UIDS: ("5000",), GIDS: ("5000",), ALIASES: ("k@d.test",)}
ROWS = st.fixed_dictionaries({table: st.none() | st.sampled_from(VALUES[table]) for table in VALUES})
CHANGES = st.lists(
    st.dictionaries(st.sampled_from(KEYS), ROWS, min_size=1, max_size=3), min_size=1, max_size=6
)


@given(CHANGES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_changes_and_whole_readings_agree(
    changes: list[dict[str, dict[str, tuple[str, ...] | None]]],
) -> None:
    with temporary() as folder, temporary() as other:
        state: State = copy.deepcopy(DOMAINS)
        for table, values in KEEPER.items():
            state[table] = {"k@d.test": values}
        files = Files(folder, linger=1e5, most_removed=1.0)
        files.bring_up(state)
        for some in changes:
            for key, rows in some.items():
                for table, row in rows.items():
                    state[table].pop(key, None)
                    if row is not None:
                        state[table][key] = row
            files.change(state, list(some))
            _check_files(files)
        whole = Files(other)
        whole.bring_up(state, force=True)
        for name in (ALIASES, MAILBOXES, "virtual_mailbox_domains"):
            assert files.rows(name) == whole.rows(name)
        assert sorted(map(str, files.set.named)) == sorted(map(str, whole.set.named))
        files.set._settings = files.set._settings.model_copy(update={"linger": 0.0})
        files.bring_up(state, force=True)
        assert files.all_rows() == whole.all_rows()
        files.set.close()
        whole.set.close()


def _check_files(files: Files) -> None:
    """Whatever is accepted can be delivered; what lingers stands in nobody's way."""
    aliases, mailboxes = files.rows(ALIASES), files.rows(MAILBOXES)
    queued = files.rows(MAILBOXES + QUEUED)
    for key, value in mailboxes.items():
        assert queued[key] == value
        if value:
            assert {files.rows(UIDS)[key], files.rows(GIDS)[key]} <= {"5000", "5001"}
    accepted = files.rows(ALIASES + QUEUED)
    assert all(accepted[key] == value or value == "" for key, value in aliases.items())
    for key in files.rows(ALIASES + QUEUED).keys() - aliases.keys():
        asked = files.set._contents.asked(ALIASES, key.encode())
        assert not {one.decode() for one in asked} & (aliases.keys() | mailboxes.keys())
