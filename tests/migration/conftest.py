"""Configuration directories of a Postfix, read by the real postconf."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

CF = """\
hosts = 127.0.0.1:1
user = postfix
password = not to be shown
dbname = mail
query = SELECT goto FROM alias WHERE address = '%s'
"""

MASTER_CF = """\
smtp inet n - n - - smtpd
virtual unix - n n - - virtual
local unix - n n - - local
"""

MakePostfix = Callable[..., Path]


@pytest.fixture
def make_postfix(tmp_path: Path) -> MakePostfix:
    """Make a configuration directory: lines of main.cf and master.cf, and the names of good .cf files."""
    if shutil.which("postconf") is None:
        pytest.skip("Postfix is not installed: make test-packages")

    def make(main_cf: str, master_cf: str = "", cf: str = "a b c d") -> Path:
        folder = tmp_path / "etc"
        folder.mkdir()
        (folder / "main.cf").write_text(f"compatibility_level = 3.6\nmyhostname = mx.example.com\n{main_cf}")
        (folder / "master.cf").write_text(MASTER_CF + master_cf)
        os.utime(folder / "main.cf", (0, 0))  # Postfix waits a second for a file that was just written
        for name in cf.split():
            (folder / f"{name}.cf").write_text(CF)
        return folder

    return make
