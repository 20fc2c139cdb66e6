"""Follow every link of the built site: to a page, a place on a page, a picture or a file.

The rule: what is on the site must be there; what is elsewhere is not asked for. MkDocs checks the
links of Markdown only, not those of labs, templates, raw HTML, or what is made after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from bs4 import BeautifulSoup

ATTRIBUTES = ("href", "src", "poster", "srcset", "data")
BASE = "http://site.invalid/"  # stands for wherever the site will be


def broken(site: Path, site_url: str = "") -> list[str]:
    """Return each link that leads nowhere, with the page it stands on; none is a good site."""
    find = _Finder(site)
    return sorted(
        f"{page}: {link}"
        for path in site.rglob("*.html")
        for page in [path.relative_to(site).as_posix()]
        for link in _links(path)
        if not find(urljoin(urljoin(BASE, page), _inside(link, site_url)))
    )


def _links(path: Path) -> Iterator[str]:
    soup = BeautifulSoup(path.read_text("utf-8"), "html.parser")
    for name in ATTRIBUTES:
        for tag in soup.select(f"[{name}]"):
            yield str(tag[name])


def _inside(link: str, site_url: str) -> str:
    # A link with the site's own address, or its path only, as the page for lost readers has them.
    for start in filter(None, (site_url, urlsplit(site_url).path)):
        if len(start) > 1 and link.startswith(start):
            return BASE + link.removeprefix(start)
    return link


class _Finder:
    """Knows which addresses of a site lead somewhere."""

    def __init__(self, site: Path) -> None:
        self.site = site
        self.places = cache(self._places)

    def __call__(self, address: str) -> bool:
        """Whether the address is on the site and there, or is elsewhere."""
        parts = urlsplit(address)
        if f"{parts.scheme}://{parts.netloc}/" != BASE:
            return True
        path = self.site / unquote(parts.path).lstrip("/")
        file = path / "index.html" if path.is_dir() else path
        if not file.is_file():
            return False
        place = unquote(parts.fragment)
        return not place or file.suffix != ".html" or place in self.places(file)

    def _places(self, file: Path) -> set[str]:
        soup = BeautifulSoup(file.read_text("utf-8"), "html.parser")
        return {str(tag["id"]) for tag in soup.select("[id]")}
