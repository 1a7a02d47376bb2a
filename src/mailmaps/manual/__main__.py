"""python -m mailmaps.manual DIRECTORY: write the manual pages below DIRECTORY, as man(1) looks for them.

DIRECTORY is what MANPATH names, such as /usr/local/share/man; `make install` calls this.
"""

from __future__ import annotations

from pathlib import Path

import click

from mailmaps.manual.pages import PAGES, render


@click.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
def write(directory: Path) -> None:
    """Write the manual pages to DIRECTORY/man1, man5 and man8."""
    for page, folder in PAGES.items():
        path = directory / folder / page
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(render(page), encoding="ascii")
        except OSError as error:
            raise click.ClickException(f"{path}: {error.strerror}") from None
        click.echo(path)


if __name__ == "__main__":
    write(prog_name="python -m mailmaps.manual")
