"""Draw the picture that other sites show beside a link to a page: its title and its question.

The rule: the same page gives the same picture. The fonts are those of the site; no browser, no
system library and no other host is needed. A card carries an address only where the site has one.
"""

from __future__ import annotations

import hashlib
import io
from functools import cache
from pathlib import Path
from urllib.parse import urljoin

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.pages import Page
from PIL import Image, ImageDraw, ImageFont

FONTS = Path(__file__).parents[2] / "docs" / "assets" / "fonts"
WIDTH, HEIGHT, MARGIN, SQUARE = 1200, 630, 80, 32  # pixels
INK, FAINT, GROUND, ACCENT = "#ffffff", "#b9d7d9", "#0a4247", "#f2a65e"
TEXT_FONT = "inter-latin-wght-normal.woff2"
CODE_FONT = "jetbrains-mono-latin-wght-normal.woff2"


def card_address(page: Page, config: MkDocsConfig) -> str | None:
    """Return where the page's card will be, or None where the site has no address."""
    return urljoin(config.site_url, _card_name(page)) if config.site_url else None


def write_cards(site: Path, order: list[Page], config: MkDocsConfig) -> None:
    """Write the card of each page, if the site has an address under which it can be found."""
    for page in order if config.site_url else []:
        path = site / _card_name(page)
        path.parent.mkdir(parents=True, exist_ok=True)
        title = config.site_name if page.is_homepage else str(page.title)
        path.write_bytes(
            draw_card(
                title, page.meta.get("description", config.site_description or ""), config.site_name
            )
        )


def _card_name(page: Page) -> str:
    return f"assets/cards/{page.url.strip('/') or 'index'}.png"


def draw_card(title: str, description: str, site_name: str) -> bytes:
    """Return a card as PNG."""
    image = Image.new("RGB", (WIDTH, HEIGHT), GROUND)
    pen = ImageDraw.Draw(image)
    _fingerprint(pen, title + description)
    width = WIDTH - 2 * MARGIN - 8 * SQUARE - 40
    y = MARGIN
    pen.text((MARGIN, y), site_name, FAINT, _font(TEXT_FONT, 32, 600))
    y += 90
    for line in _lines(title, _font(TEXT_FONT, 68, 700), width):
        pen.text((MARGIN, y), line, INK, _font(TEXT_FONT, 68, 700))
        y += 84
    y += 24
    for line in _lines(description, _font(TEXT_FONT, 34, 400), width):
        pen.text((MARGIN, y), line, FAINT, _font(TEXT_FONT, 34, 400))
        y += 48
    file = io.BytesIO()
    image.quantize(64).save(file, "png", optimize=True)
    return file.getvalue()


def _fingerprint(pen: ImageDraw.ImageDraw, text: str) -> None:
    # The SHA-256 of the card's text: a square for each digit that is 8 or more, and its beginning.
    digest = hashlib.sha256(text.encode()).hexdigest()
    left, size = WIDTH - MARGIN - 8 * SQUARE, SQUARE
    for index, digit in enumerate(digest):
        x, y = left + index % 8 * size, MARGIN + index // 8 * size
        if int(digit, 16) >= 8:
            pen.rectangle((x, y, x + size - 6, y + size - 6), ACCENT)
    pen.text((left, MARGIN + 8 * size + 14), digest[:16], FAINT, _font(CODE_FONT, 26, 400))


@cache
def _font(name: str, size: int, weight: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.truetype(FONTS / name, size)
    font.set_variation_by_axes([weight])
    return font


def _lines(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
