"""Write what other programs and old links need: llms.txt, robots.txt, anchors.json, redirects.

The rule: an address that was once given out leads somewhere useful, and one that we promise exists.
"""

from __future__ import annotations

import html
import json
import re
from collections import Counter
from itertools import groupby
from pathlib import Path
from urllib.parse import urljoin

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

ANY_ID = re.compile(r'<\w[^>]*?\sid="([^"]+)"')
HEADING_ID = re.compile(r'<h[1-6]\b[^>]*?\sid="([^"]+)"')

# The script comes first where scripts run, and keeps the #anchor that the reader came with.
REDIRECT = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<title>Moved: {title}</title>
<meta name="robots" content="noindex">
<link rel="icon" href="data:,">
<link rel="canonical" href="{canonical}">
<meta http-equiv="refresh" content="0; url={target}">
</head>
<body>
<p>What you look for is here: <a href="{target}">{title}</a></p>
<script>
const target = document.querySelector("a");
if (location.hash) target.hash = location.hash;
location.replace(target.href);
</script>
</body>
</html>
"""


def write_addresses(site: Path, order: list[Page], config: MkDocsConfig) -> None:
    """Write all of it into the built site."""
    (site / "llms.txt").write_text(for_language_models(order, config), "utf-8")
    (site / "robots.txt").write_text(for_crawlers(config), "utf-8")
    anchors = json.dumps(known_anchors(site, order), sort_keys=True, separators=(",", ":"))
    (site / "anchors.json").write_text(anchors, "utf-8")
    for old, new in config.extra.get("redirects", {}).items():
        redirect(site, old, new, order, config)


def for_language_models(order: list[Page], config: MkDocsConfig) -> str:
    """Return llms.txt: what the site is, then each page with its address and what it answers."""
    lines = [f"# {config.site_name}", "", f"> {config.site_description or config.site_name}"]
    for section, pages in groupby(order, key=section_of):
        lines += ["", f"## {section}", ""]
        for page in pages:
            about = page.meta.get("description")
            link = f"- [{page.title}]({urljoin(config.site_url or '', page.url) or './'})"
            lines.append(f"{link}: {about}" if about else link)
    return "\n".join(lines) + "\n"


def section_of(page: Page) -> str:
    """Return the name of the part of the site in which a page stands."""
    return page.parent.title if page.parent else "Start"


def for_crawlers(config: MkDocsConfig) -> str:
    """Return robots.txt: everyone may read everything."""
    rules = "User-agent: *\nAllow: /\n"
    return f"{rules}\nSitemap: {config.site_url}sitemap.xml\n" if config.site_url else rules


def known_anchors(site: Path, order: list[Page]) -> dict[str, str]:
    """Return the page of each heading's id; an id that several pages have leads nowhere."""
    found = [
        (anchor, page.url)
        for page in order
        for anchor in set(HEADING_ID.findall((site / page.file.dest_uri).read_text("utf-8")))
    ]
    pages_with = Counter(anchor for anchor, _ in found)
    return {anchor: url for anchor, url in found if pages_with[anchor] == 1}


def redirect(site: Path, old: str, new: str, order: list[Page], config: MkDocsConfig) -> None:
    """Write a page at the address `old` that leads to `new`, a page or a part of one."""
    address, _, anchor = new.partition("#")
    page = next((page for page in order if page.url == address), None)
    if page is None:
        raise PluginError(f"The redirect {old} -> {new} leads to no page.")
    if anchor and anchor not in ANY_ID.findall((site / page.file.dest_uri).read_text("utf-8")):
        raise PluginError(f"The redirect {old} -> {new} leads to a page without #{anchor}.")
    file = site / old / "index.html"
    if file.exists() and 'http-equiv="refresh"' not in file.read_text("utf-8"):
        raise PluginError(f"The redirect {old} -> {new} would replace an existing page.")
    target = get_relative_url(new, old)
    text = REDIRECT.format(
        canonical=html.escape(urljoin(config.site_url, address) if config.site_url else target),
        target=html.escape(target),
        title=html.escape(page.title),
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, "utf-8")
