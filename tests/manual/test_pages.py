"""The pages as man(1) reads them: correct to both formatters, the same wherever they are made, and true."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.manual.pages import sections, tags

from mailmaps import __version__
from mailmaps.cli import options
from mailmaps.config import Settings
from mailmaps.dovecot import checkpassword
from mailmaps.manual import pages
from mailmaps.manual.pages import PAGES, render

SECTIONS = {
    "mailmaps.1": ["COMMANDS", "OPTIONS", "EXIT STATUS", "ENVIRONMENT", "FILES", "EXAMPLES"],
    "mailmaps.8": ["OPTIONS", "SIGNALS", "EXIT STATUS", "ENVIRONMENT", "CREDENTIALS", "FILES", "EXAMPLES"],
    "mailmaps-checkpassword.8": ["OPTIONS", "EXIT STATUS", "ENVIRONMENT", "FILES", "EXAMPLES"],
    "mailmaps.toml.5": ["SETTINGS", "FILES", "EXAMPLES"],
}
UNITS = Path(__file__).parents[2] / "systemd"
# Terminals have 80 columns.
COLUMNS = 80


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("man")
    write(folder)
    return folder


def write(folder: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "mailmaps.manual", str(folder)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_they_are_where_man_looks_and_the_same_everywhere(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "man8").mkdir()
    (tmp_path / "man8" / "mailmaps.8").write_text("an older one")
    elsewhere = {
        "TZ": "Asia/Kolkata",
        "LC_ALL": "C",
        "COLUMNS": "40",
        "MAILMAPS_CONFIG": "/tmp/x",
        "HOME": "/",
    }
    write(tmp_path, SOURCE_DATE_EPOCH="0", **elsewhere)
    assert contents(tmp_path) == contents(folder)
    assert sorted(contents(folder)) == [
        "man1/mailmaps.1",
        "man5/mailmaps.toml.5",
        "man8/mailmaps-checkpassword.8",
        "man8/mailmaps.8",
    ]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "man1").write_text("")
    words = [sys.executable, "-m", "mailmaps.manual", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"Error: {tmp_path}/man1/mailmaps.1: File exists\n"


@pytest.mark.parametrize("page", PAGES)
def test_the_source_is_plain(page: str) -> None:
    """ASCII, no hyphen that a formatter may make another character of, no line that is too long."""
    for line in render(page).splitlines():
        assert line.isascii()
        assert line == line.rstrip()
        if line.startswith(('.\\"', ".TH")):
            continue
        assert not re.search(r"(?<!\\)-", line), line
        assert not re.search(r"(?<!\\)['`^]|(?<!\\)~", line), line
        assert len(line) <= COLUMNS, line


@pytest.mark.parametrize("page", PAGES)
def test_the_sections_of_a_page(page: str) -> None:
    text = render(page)
    found = [line.removeprefix(".SH ").strip('"') for line in text.splitlines() if line.startswith(".SH ")]
    assert found[:3] == ["NAME", "SYNOPSIS", "DESCRIPTION"]
    assert found[-1] == "SEE ALSO"
    assert [name for name in found if name in SECTIONS[page]] == SECTIONS[page]
    name, section = page.rsplit(".", 1)
    title = f'.TH {name.upper()} {section} {pages.DATE} "mailmaps {__version__}"'
    assert text.splitlines()[1 if page != "mailmaps.toml.5" else 2].replace("\\-", "-").startswith(title)


@pytest.mark.postfix
@pytest.mark.parametrize("page", PAGES)
def test_formatters_have_nothing_to_complain_about(folder: Path, page: str) -> None:
    path = str(folder / PAGES[page] / page)
    for words in (["mandoc", "-Tlint", "-Wall", path], ["groff", "-man", "-ww", "-z", "-Tutf8", path]):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.stdout + done.stderr == "", words
        assert done.returncode == 0


@pytest.mark.postfix
@pytest.mark.parametrize("page", PAGES)
def test_a_page_fits_a_terminal(folder: Path, page: str) -> None:
    path = str(folder / PAGES[page] / page)
    words = ["groff", "-man", "-Tutf8", "-P-cbou", path]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert [line for line in shown.splitlines() if len(line) > COLUMNS] == []
    assert "\u2010" not in shown  # a hyphen that cannot be copied


@pytest.mark.postfix
@pytest.mark.parametrize("page", PAGES)
def test_whatis_finds_it(folder: Path, page: str) -> None:
    path = folder / PAGES[page] / page
    done = subprocess.run(["lexgrog", str(path)], capture_output=True, text=True, check=False)
    assert re.fullmatch(rf'{path}: "{page.rpartition(".")[0]} - [^"]+"\n', done.stdout), done.stdout


@pytest.mark.parametrize("page", PAGES)
def test_no_setting_is_named_that_does_not_exist(page: str) -> None:
    """`cache.max_stale` in a page is a setting; `mailmaps.toml` and `mailmaps.logins` are no section's."""
    shipped = Settings()
    text = re.sub(r"\\f[BIR]", "", render(page)).replace("\\-", "-").replace("[tables.partners]", "")
    for section in type(shipped).model_fields:
        for name in re.findall(rf"(?<![\w./-]){section}\.([a-z_]+)\b(?!\.|\()", text):
            if name in ("md", "toml"):
                continue  # a file
            value = getattr(shipped, section)
            assert name in (value if isinstance(value, dict) else type(value).model_fields), (
                f"{section}.{name}"
            )


@pytest.mark.parametrize("page", PAGES)
def test_our_own_pages_that_are_named_exist(page: str) -> None:
    text = re.sub(r"\\f[BIR]", "", render(page)).replace("\\-", "-")
    named = {f"{name}.{section}" for name, section in re.findall(r"\b(mailmaps[\w.-]*) ?\((\d)\)", text)}
    assert named <= PAGES.keys()
    assert len(named) >= 2


@pytest.mark.parametrize("page", PAGES)
def test_units_that_are_named_exist(page: str) -> None:
    text = re.sub(r"\\f[BIR]", "", render(page)).replace("\\-", "-")
    named = set(re.findall(r"(?<![\w/.-])mailmaps[\w-]*\.(?:service|socket|timer|target)\b", text))
    assert named <= {path.name for path in UNITS.iterdir()}
    assert bool(named) == (page == "mailmaps.8")


def test_every_exit_code_of_the_commands_is_explained() -> None:
    codes = {str(value) for name, value in vars(options).items() if name.startswith("EX_")}
    assert {"0", "1", "2"} | codes == set(tags("mailmaps.1")["EXIT STATUS"])


def test_what_is_not_known_is_no_place_in_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyError, match=r"cache\.no_such"):
        pages._value("cache.no_such", {})
    assert pages._value("cache.max_stale", {}) == "86400"
    assert not re.search(r"\{\{|\}\}", "".join(map(render, PAGES)))


def test_what_checkpassword_does_is_in_its_page() -> None:
    """All variables that the program reads and all codes that it ends with."""
    source = Path(str(checkpassword.__file__)).read_text()
    text = "\n".join(sections("mailmaps-checkpassword.8").values())
    for name in re.findall(r'environ\.get\(b"(\w+)"', source):
        assert re.search(rf"\b{name}\b", text), name
    module = checkpassword
    codes = (module.ACCEPTED, module.REJECTED, module.ACCEPTED_LOOKUP, module.UNKNOWN, module.CANNOT_SAY)
    assert tags("mailmaps-checkpassword.8")["EXIT STATUS"] == [str(code) for code in codes]
