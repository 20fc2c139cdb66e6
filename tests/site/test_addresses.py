"""Addresses that were once given out lead somewhere, and programs are told what is here."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
from bs4 import BeautifulSoup
from mkdocs.exceptions import PluginError

from tools.look.addresses import write_addresses

DESCRIPTION = "What a key is."


def page(url: str, title: str, part: str | None = None, **meta: str) -> Any:
    """A page as MkDocs knows it."""
    parent = SimpleNamespace(title=part) if part else None
    file = SimpleNamespace(dest_uri=f"{url}index.html")
    return SimpleNamespace(url=url, title=title, parent=parent, meta=meta, file=file)


ORDER = [
    page("", "Home"),
    page("a/keys/", "Keys & draws", "Part A", description=DESCRIPTION),
    page("a/data/", "Data", "Part A"),
]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A built site of three pages."""
    for one, body in zip(
        ORDER,
        [
            '<h1 id="home">Home</h1><h2 id="where-it-ends">End</h2>',
            '<h1 id="keys">Keys</h1><h2 class="x" id="fold-in">Fold</h2><p id="no-heading"></p>',
            '<h1 id="data">Data</h1><h2 id="where-it-ends">End</h2>',
        ],
        strict=True,
    ):
        file = tmp_path / one.file.dest_uri
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"<html><article>{body}</article></html>", "utf-8")
    return tmp_path


def written(site: Path, site_url: str = "", **redirects: str) -> Path:
    """The small site after the addresses were written into it."""
    config: Any = SimpleNamespace(
        site_name="Small",
        site_description="A site.",
        site_url=site_url,
        extra={"redirects": {old.replace("__", "/"): new for old, new in redirects.items()}},
    )
    write_addresses(site, ORDER, config)
    return site


def test_language_models_are_told_every_page(small: Path) -> None:
    """llms.txt names each page by its part, with its address and what it answers."""
    assert (written(small) / "llms.txt").read_text("utf-8") == (
        "# Small\n\n> A site.\n\n## Start\n\n- [Home](./)\n\n## Part A\n\n"
        f"- [Keys & draws](a/keys/): {DESCRIPTION}\n- [Data](a/data/)\n"
    )
    published = written(small, "https://owner.example/name/") / "llms.txt"
    assert "(https://owner.example/name/a/keys/)" in published.read_text("utf-8")
    assert "(https://owner.example/name/)" in published.read_text("utf-8")


def test_crawlers_may_read_everything(small: Path) -> None:
    """robots.txt forbids nothing, and names the sitemap where the address is known."""
    robots = written(small) / "robots.txt"
    assert robots.read_text("utf-8") == "User-agent: *\nAllow: /\n"
    written(small, "https://owner.example/name/")
    assert "\nSitemap: https://owner.example/name/sitemap.xml\n" in robots.read_text("utf-8")


def test_anchors_are_those_of_headings_on_one_page_only(small: Path) -> None:
    """A section that moved can be found by its id, unless several pages have one of that name."""
    anchors = json.loads((written(small) / "anchors.json").read_text("utf-8"))
    assert anchors == {"home": "", "keys": "a/keys/", "fold-in": "a/keys/", "data": "a/data/"}


def test_a_redirect_leads_to_its_page(small: Path) -> None:
    """It works without scripts, is not indexed, and names the page that is."""
    written(small, "https://owner.example/name/", old__keys__="a/keys/#fold-in", a__="a/keys/")
    html = BeautifulSoup((small / "old/keys/index.html").read_text("utf-8"), "html.parser")
    target = "../../a/keys/#fold-in"
    assert html.select_one("meta[http-equiv=refresh]")["content"] == f"0; url={target}"
    assert html.select_one("body a")["href"] == target
    assert html.select_one("body a").text == "Keys & draws"
    assert html.select_one("meta[name=robots]")["content"] == "noindex"
    canonical = html.select_one("link[rel=canonical]")["href"]
    assert canonical == "https://owner.example/name/a/keys/"
    assert 'url=keys/"' in (small / "a/index.html").read_text("utf-8")
    written(small, a__="a/data/")  # a second build into the same folder
    assert 'url=data/"' in (small / "a/index.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("old__", "a/gone/", "leads to no page"),
        ("old__", "a/keys/#gone", "leads to a page without #gone"),
        ("a__data__", "a/keys/", "would replace an existing page"),
    ],
)
def test_a_redirect_that_misleads_fails_the_build(
    small: Path, old: str, new: str, reason: str
) -> None:
    """One sentence says which redirect is wrong, and how."""
    with pytest.raises(PluginError, match=rf"^The redirect \S+ -> {new} {reason}\.$"):
        written(small, **{old: new})


def locations(site: Path) -> list[str]:
    """The addresses of all pages."""
    return re.findall("<loc>(.*?)</loc>", (site / "sitemap.xml").read_text("utf-8"))


def test_the_site_names_each_page(site: Path) -> None:
    """Every page of the sitemap is in llms.txt; every anchor and redirect leads to a page."""
    models = (site / "llms.txt").read_text("utf-8")
    assert len(locations(site)) > 20
    for location in locations(site):
        assert f"]({location})" in models
    for url in json.loads((site / "anchors.json").read_text("utf-8")).values():
        assert (site / url / "index.html").exists()
    for folder in {file.parents[1] for file in site.glob("*/*/index.html")}:
        assert (folder / "index.html").exists(), "a trimmed address leads nowhere"


def test_a_lost_reader_gets_links_that_work_anywhere(site: Path) -> None:
    """404.html is shown at any address: its links begin at the site's folder, and all lead on."""
    html = BeautifulSoup((site / "404.html").read_text("utf-8"), "html.parser")
    links = [urljoin("/", str(link["href"])) for link in html.select("article a:not([href^='?'])")]
    for link in links:
        assert link.startswith("/name/")
        assert (site / link.removeprefix("/name/") / "index.html").exists()
    assert {urlsplit(location).path for location in locations(site)} == set(links)
    assert len(html.select("h1")) == 1
    assert html.select_one("meta[name=robots]")["content"] == "noindex"
