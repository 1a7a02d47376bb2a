"""The one picture of the report: a bar for each hour, or day, of what was delivered, put off and refused.

It is a PNG of a few kB, drawn on a light card of its own, so that it is readable on a dark page as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 1440, 400  # shown at half the size: sharp on fine screens
_LEFT, _RIGHT, _TOP, _BOTTOM = 110, 24, 64, 52
_BACKGROUND, _INK, _GRID = (255, 255, 255), (70, 80, 92), (226, 231, 236)
# Told apart by the colour-blind, too: blue, orange, grey (Okabe and Ito).
COLOURS = (("delivered", (0, 114, 178)), ("deferred or bounced", (230, 120, 0)), ("refused", (150, 150, 158)))


def picture(slots: Sequence[tuple[str, int, int, int]]) -> bytes:
    """The PNG; `slots` are (label, delivered, deferred and bounced, refused)."""
    image = Image.new("RGB", (WIDTH, HEIGHT), _BACKGROUND)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(24)
    top = _round_up(max((sum(slot[1:]) for slot in slots), default=0))
    _legend(draw, font)
    _grid(draw, font, top)
    _bars(draw, font, slots, top)
    file = BytesIO()
    image.quantize(colors=32).save(file, "PNG", optimize=True)
    return file.getvalue()


def _round_up(number: int) -> int:
    """The end of the scale: 4, 10, 20, 40, 100, ..."""
    scale = 1
    while True:
        for step in (4, 10, 20):
            if number <= step * scale:
                return step * scale
        scale *= 10


_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def _legend(draw: ImageDraw.ImageDraw, font: _Font) -> None:
    x = float(_LEFT)
    for name, colour in COLOURS:
        draw.rectangle((x, 20, x + 22, 42), fill=colour)
        draw.text((x + 32, 31), name, fill=_INK, font=font, anchor="lm")
        x += 32 + draw.textlength(name, font=font) + 40


def _grid(draw: ImageDraw.ImageDraw, font: _Font, top: int) -> None:
    for part in range(5):
        y = HEIGHT - _BOTTOM - part * (HEIGHT - _TOP - _BOTTOM) / 4
        draw.line((_LEFT, y, WIDTH - _RIGHT, y), fill=_GRID, width=2)
        if (top * part) % 4 == 0:
            draw.text((_LEFT - 12, y), _short(top * part // 4), fill=_INK, font=font, anchor="rm")


def _short(number: int) -> str:
    for scale, unit in ((1_000_000_000, "G"), (1_000_000, "M"), (1000, "k")):
        if number >= scale:
            return f"{number / scale:g}{unit}"
    return str(number)


def _bars(
    draw: ImageDraw.ImageDraw, font: _Font, slots: Sequence[tuple[str, int, int, int]], top: int
) -> None:
    bottom, height = HEIGHT - _BOTTOM, HEIGHT - _TOP - _BOTTOM
    step = (WIDTH - _LEFT - _RIGHT) / max(1, len(slots))
    wide = max((draw.textlength(label, font=font) for label, *_ in slots), default=0) + 14
    every = max(1, -int(-wide // step))
    for number, (label, *counts) in enumerate(slots):
        x, y = _LEFT + number * step, float(bottom)
        for count, (_, colour) in zip(counts, COLOURS, strict=True):
            if count:
                # A thing that happened once in a busy hour is seen, too.
                higher = max(3.0, count * height / top)
                draw.rectangle((x + step * 0.12, y - higher, x + step * 0.88, y - 1), fill=colour)
                y -= higher
        if number % every == 0:
            draw.text((x + step / 2, bottom + 12), label, fill=_INK, font=font, anchor="mt")
