"""The C programs of the suite, compiled when there is a compiler."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SOURCES = Path(__file__).parent
NAMES = ("floor", "load", "logins", "policy", "rcpt")
FLAGS = ("-O2", "-std=gnu11", "-Wall", "-Wextra")
TIME_LIMIT = 60.0

NO_COMPILER = "there is no C compiler here (apt-get install gcc libc6-dev)"


class Programs:
    """Where the programs are; `built` is false where nothing could compile them."""

    def __init__(self, folder: Path) -> None:
        """Raises `subprocess.CalledProcessError` when a compiler is there and refuses."""
        self._folder = folder
        self.compiler = shutil.which("cc") or ""
        self.built = bool(self.compiler)
        if self.built:
            for name in NAMES:
                words = [self.compiler, *FLAGS, "-o", str(self.path(name)), str(SOURCES / f"{name}.c")]
                subprocess.run(words, check=True, timeout=TIME_LIMIT)

    def path(self, name: str) -> Path:
        return self._folder / name
