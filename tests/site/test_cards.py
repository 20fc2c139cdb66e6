"""The pictures that other sites show beside a link."""

import io
from pathlib import Path

from bs4 import BeautifulSoup
from PIL import Image

from tools.look.cards import draw_card


def meta(path: Path) -> dict[str, str]:
    """What a page tells other sites."""
    soup = BeautifulSoup(path.read_text("utf-8"), "html.parser")
    return {str(tag["property"]): str(tag["content"]) for tag in soup.select("meta[property]")}


def test_a_card_is_its_text() -> None:
    """The same text gives the same bytes; other text, another picture, squares and all."""
    card = draw_card("Title", "What it answers.", "Site")
    assert card == draw_card("Title", "What it answers.", "Site")
    assert card != draw_card("Title", "What it answers!", "Site")
    assert Image.open(io.BytesIO(card)).size == (1200, 630)
    assert squares(card) != squares(draw_card("Title", "What it answers!", "Site"))


def squares(card: bytes) -> bytes:
    """The part of a card that shows the SHA-256 of its text."""
    return Image.open(io.BytesIO(card)).convert("RGB").crop((860, 70, 1130, 340)).tobytes()


def test_the_longest_title_fits() -> None:
    """A title of three lines with a description of 155 characters stays inside of the picture."""
    card = draw_card("A training run from its start to its proof", "word " * 31, "Site")
    image = Image.open(io.BytesIO(card)).convert("RGB")
    bottom = image.crop((0, 630 - 20, 1200, 630)).getcolors()
    assert bottom is not None
    assert len(bottom) == 1


def test_every_page_has_a_card_and_a_description(site: Path) -> None:
    """Each page names its own picture, which is there, and has a description of its own."""
    pages = [path for path in site.rglob("index.html") if 'rel="canonical"' in path.read_text()]
    assert len(pages) > 20
    said = {}
    for path in pages:
        if "noindex" in path.read_text("utf-8"):
            continue
        tags = meta(path)
        card = tags["og:image"].removeprefix("https://owner.example/name/")
        assert (site / card).is_file()
        said[tags["og:description"]] = path
        assert 60 <= len(tags["og:description"]) <= 155, path
    assert len(said) == len([p for p in pages if "noindex" not in p.read_text("utf-8")])
