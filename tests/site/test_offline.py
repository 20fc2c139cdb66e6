"""The archive holds the whole site and works from a disk; the page to print holds all pages."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zipfile import ZipFile

import pytest
from bs4 import BeautifulSoup

from tools.guard.published import shown_blocks
from tools.look.links import broken
from tools.takeaway.offline import write_archive
from tools.takeaway.printable import NOT_PRINTED, name_of, write_printable

PAGE = """<html><head><link rel="stylesheet" href="../../assets/x.css">
<link rel="preload" as="font" crossorigin href="../../assets/x.woff2"></head><body>
<article class="c"><h1 id="top">Keys</h1><p class="first-line"><a href="keys.py">Program</a></p>
<h2 id="end">End<a class="headerlink" href="#end">¶</a></h2>
<p><a href="../data/">page</a> <a href="../data/#end">part</a> <a href="#end">here</a>
<a href="../..">home</a> <a href="keys.py">file</a> <a href="https://a.example/b/">away</a>
<a href="../../reference/api/#x">api</a> <a href="../../reproducibility-site.zip">zip</a></p>
<details><summary>More</summary><pre><code>x = "href"</code></pre></details>
<svg aria-labelledby="top end"><marker id="arrow"></marker><path marker-end="url(#arrow)"></path>
</svg>
</article><script id="__config" type="application/json">
{"features": ["a", "navigation.instant", "b"]}</script>
<script src="../../scripts/x.mjs" type="module"></script></body></html>
"""
REDIRECT = '<head></head><meta http-equiv="refresh" content="0; url=keys/"><a href="keys/">Keys</a>'


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A built site of three pages and a redirect, with two modules."""
    index = {"docs": [{"location": where} for where in ("", "#x", "a/keys/", "a/keys/#end")]}
    for name, text in {
        "index.html": PAGE.replace("../../", "").replace("../data/", "a/data/"),
        "a/index.html": REDIRECT,
        "a/keys/index.html": PAGE,
        "a/data/index.html": PAGE,
        "404.html": "lost",
        "assets/x.js.map": "{}",
        "scripts/x.mjs": 'import { y } from "./y.mjs";\n',
        "scripts/y.mjs": "export const y = 1;\n",
        "search/search_index.json": json.dumps(index),
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    return tmp_path


def archive(site: Path) -> dict[str, str]:
    """What the archive of a site holds, without the folder around it."""
    write_archive(site)
    with ZipFile(site / "reproducibility-site.zip") as packed:
        return {
            name.removeprefix("reproducibility-site/"): packed.read(name).decode("utf-8", "replace")
            for name in packed.namelist()
        }


def test_links_name_files(small: Path) -> None:
    """A link to a page names its index.html; other links, and those of redirects, stay right."""
    packed = archive(small)
    links = re.findall(r'<a href="(.*?)">', packed["a/keys/index.html"])
    assert links == [
        "keys.py",
        "../data/index.html",
        "../data/index.html#end",
        "#end",
        "../../index.html",
        "keys.py",
        "https://a.example/b/",
        "../../reference/api/index.html#x",
    ]
    assert packed["a/index.html"] == REDIRECT.replace("keys/", "keys/index.html")


def test_nothing_that_a_disk_refuses_is_left(small: Path) -> None:
    """No module, preload or instant navigation; the shim and the modules' texts come first."""
    html = archive(small)["a/keys/index.html"]
    assert 'type="module"' not in html
    assert "preload" not in html
    assert '["a", "b"]' in html
    assert '<script>importFromDisk("scripts/x.mjs")</script>' in html
    head, _, _ = html.partition("</head>")
    assert '<script src="../../vendor/iframe-worker/shim.js"></script>' in head
    assert '<script src="../../modules.js"></script>' in head
    assert "zip</a>" not in html


def test_the_archive_leaves_out_what_only_a_server_needs(small: Path) -> None:
    """Neither itself, nor the page for a wrong address, nor source maps are in it."""
    archive(small)
    assert list(archive(small)) == [
        "a/data/index.html",
        "a/index.html",
        "a/keys/index.html",
        "index.html",
        "modules.js",
        "scripts/x.mjs",
        "scripts/y.mjs",
        "search/search_index.js",
        "search/search_index.json",
    ]


def test_search_finds_files(small: Path) -> None:
    """The index is a script as well, and its locations name files."""
    packed = archive(small)
    script = packed["search/search_index.js"]
    assert script == "var __index = " + packed["search/search_index.json"]
    found = [entry["location"] for entry in json.loads(packed["search/search_index.json"])["docs"]]
    assert found == [
        "./index.html",
        "./index.html#x",
        "a/keys/index.html",
        "a/keys/index.html#end",
    ]


def test_the_archive_has_the_same_bytes_twice(small: Path) -> None:
    """Neither the clock nor the order of the files on the disk reaches the archive."""
    packed = small / "reproducibility-site.zip"
    write_archive(small)
    first = packed.read_bytes()
    later = small / "a/keys/index.html"
    later.rename(small / "moved")
    (small / "moved").rename(later)
    later.touch()
    write_archive(small)
    assert packed.read_bytes() == first
    later.write_text(PAGE + " ", "utf-8")
    write_archive(small)
    assert packed.read_bytes() != first


def order() -> list[Any]:
    """The pages of the small site."""
    return [
        SimpleNamespace(
            url=url,
            title=title,
            parent=SimpleNamespace(title="Part A") if url else None,
            file=SimpleNamespace(dest_uri=f"{url}index.html"),
        )
        for url, title in (("", "Home"), ("a/keys/", "Keys & draws"), ("a/data/", "Data"))
    ]


def printed(site: Path) -> BeautifulSoup:
    """The page to print of the small site."""
    config: Any = SimpleNamespace(site_name="Small", site_description="A site.")
    write_printable(site, order(), config)
    return BeautifulSoup((site / "print/index.html").read_text("utf-8"), "html.parser")


def test_links_between_pages_stay_on_the_page_to_print(small: Path) -> None:
    """Pages and their sections are parts with ids; links to files and other hosts stay right."""
    keys = printed(small).select_one("#a-keys")
    assert [link["href"] for link in keys.select("a")] == [
        "#a-data",
        "#a-data--end",
        "#a-keys--end",
        "#home",
        "../a/keys/keys.py",
        "https://a.example/b/",
        "../reference/api/#x",
        "../reproducibility-site.zip",
    ]
    assert keys.select_one("h2")["id"] == "a-keys--top"
    assert keys.select_one("path")["marker-end"] == "url(#a-keys--arrow)"
    assert keys.select_one("svg")["aria-labelledby"] == "a-keys--top a-keys--end"


def test_the_page_to_print_can_be_read_without_a_click(small: Path) -> None:
    """Details are open; what can only be clicked is gone; it has one title, and contents."""
    html = printed(small)
    assert not html.select("script, .headerlink, .first-line, details:not([open])")
    assert [h1.text for h1 in html.select("h1")] == ["Small"]
    assert [link.text for link in html.select("nav a")] == ["Home", "Keys & draws", "Data"]
    assert html.select_one("meta[name=robots]")["content"] == "noindex"
    assert html.select_one("link[rel=stylesheet]")["href"] == "../assets/x.css"


def test_the_page_to_print_shows_the_blocks_of_all_pages(site: Path) -> None:
    """What is printed was checked: its blocks are those of the pages, none more and none less."""
    html = (site / "print/index.html").read_text("utf-8")
    parts = BeautifulSoup(html, "html.parser").select("section[id]")
    blocks = Counter(shown_blocks(f'<div class="md-content">{html}</div>'))
    on_pages: Counter[Any] = Counter()
    for source in pages_on(site, html):
        on_pages += Counter(shown_blocks(source.read_text("utf-8")))
    assert len(parts) > 20
    assert blocks == on_pages


def pages_on(site: Path, html: str) -> Iterator[Path]:
    """The pages of the site that the page to print holds, by its table of contents."""
    names = {name_of(SimpleNamespace(url=url)): site / url / "index.html" for url in urls(site)}
    for link in BeautifulSoup(html, "html.parser").select("main > nav a"):
        yield names[str(link["href"]).removeprefix("#")]


def urls(site: Path) -> list[str]:
    """The addresses of all pages, from the site's folder."""
    sitemap = (site / "sitemap.xml").read_text("utf-8")
    return re.findall("<loc>https://owner.example/name/(.*?)</loc>", sitemap)


def test_every_page_but_the_api_is_printed(site: Path) -> None:
    """No page is forgotten."""
    html = (site / "print/index.html").read_text("utf-8")
    assert len(list(pages_on(site, html))) == len(
        [url for url in urls(site) if NOT_PRINTED not in url]
    )


def test_every_link_of_the_archive_leads_to_one_of_its_files(site: Path, tmp_path: Path) -> None:
    """From a disk, no link, anchor, script, style or picture of any page is missing."""
    with ZipFile(site / "reproducibility-site.zip") as packed:
        packed.extractall(tmp_path)
    folder = tmp_path / "reproducibility-site"
    assert broken(folder) == []
    assert len(list(folder.rglob("*.html"))) > 20


def test_ids_of_the_page_to_print_are_there_once(site: Path) -> None:
    """No two pages bring the same id; that links find theirs is tested for all pages."""
    html = BeautifulSoup((site / "print/index.html").read_text("utf-8"), "html.parser")
    ids = Counter(str(tag["id"]) for tag in html.select("[id]"))
    assert [one for one, times in ids.items() if times > 1] == []
