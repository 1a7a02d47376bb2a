"""`make uninstall`: what install.sh wrote down goes, and nothing else; without systemd, below a folder."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "packaging" / "uninstall.sh"

INSTALLED = (
    "/usr/lib/mailmaps/checkpassword.py",
    "/usr/lib/systemd/system/mailmaps.service",
    "/usr/local/bin/mailmaps",
    "/usr/local/share/doc/mailmaps/docs/logs.md",
    "/usr/local/share/doc/mailmaps/README.md",
    "/usr/local/share/man/man1/mailmaps.1",
)

KEPT = (
    "/etc/mailmaps/mailmaps.toml",
    "/etc/systemd/system/mailmaps.service.d/pam.conf",
    "/usr/lib/systemd/system/postfix.service",
    "/usr/local/share/doc/mailmaps/notes-of-ours",
    "/var/lib/mailmaps-filemaps/virtual_alias_maps.lmdb",
    "/var/vmail/example.org/jan/new/1",
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An installation, as install.sh makes it, and what others have put beside it."""
    root = tmp_path / "a root"
    for path in (*INSTALLED, *KEPT, "/opt/mailmaps/pyvenv.cfg", "/opt/mailmaps/bin/mailmaps"):
        file = Path(f"{root}{path}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(path)
    (root / "opt/mailmaps/installed-files").write_text("".join(f"{path}\n" for path in INSTALLED))
    return root


def uninstall(root: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DESTDIR": f"{root}/", **more}
    return subprocess.run(
        ["sh", str(SCRIPT)], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def files(root: Path) -> set[str]:
    return {str(path).removeprefix(str(root)) for path in root.rglob("*") if path.is_file()}


def test_what_was_installed_goes_and_all_else_stays(root: Path) -> None:
    done = uninstall(root)
    assert (done.returncode, done.stderr) == (0, "")
    assert files(root) == set(KEPT)
    assert not (root / "usr/lib/mailmaps").exists(), "a folder of ours goes with its last file"
    assert not (root / "usr/local/share/doc/mailmaps/docs").exists()
    assert (root / "usr/local/share/man/man1").is_dir()
    assert "/var/lib/mailmaps" in done.stdout


def test_what_is_no_installation_is_left(root: Path) -> None:
    before = files(root)
    for prefix in ("/usr", "/var/lib", "/opt"):
        done = uninstall(root, PREFIX=prefix)
        assert done.returncode == 1
        assert f"there is no mailmaps in {root}{prefix}" in done.stderr
    assert files(root) == before


def test_an_older_version_did_not_say_what_it_installed(root: Path) -> None:
    (root / "opt/mailmaps/installed-files").unlink()
    before = files(root)
    done = uninstall(root)
    assert done.returncode == 1
    assert "make install, then make uninstall" in done.stderr
    assert files(root) == before


@pytest.mark.parametrize("line", ["", "relative", "/usr/lib/../../etc/mailmaps/mailmaps.toml"])
def test_a_line_that_is_no_path_ends_it(root: Path, line: str) -> None:
    (root / "opt/mailmaps/installed-files").write_text(f"{line}\n")
    before = files(root)
    assert uninstall(root).returncode == 1
    assert files(root) == before
