"""Make one page of the whole site, to print or to search: print/index.html.

The rule: it says what the pages say, in their order, and needs no script. A link from page to page
becomes a link within it; what can only be clicked is left out; what is folded is open.
"""

from __future__ import annotations

import html as html_module
import re
from itertools import groupby
from pathlib import Path
from urllib.parse import urljoin

from bs4 import BeautifulSoup
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

from tools.look.addresses import section_of

PRINT_ADDRESS = "print/"
NOT_PRINTED = "reference/api/"  # to be looked up, not to be read
UNPRINTED = "script, button, input, link, .headerlink, .anchor-link, .first-line"
HEAD_LINK = re.compile(r'<link rel="(stylesheet|icon)" href="([^":]+)"')
ID_ATTRIBUTES = ("id", "for", "headers", "aria-labelledby", "aria-describedby", "aria-controls")
ADDRESS_ATTRIBUTES = ("href", "xlink:href", "src")

DOCUMENT = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="robots" content="noindex">
<title>{name}: the whole site on one page</title>
{links}
</head>
<body class="print" dir="ltr" data-md-color-scheme="default" data-md-color-primary="custom">
<main class="md-typeset">
<header>
<h1>{name}</h1>
<p>{description}</p>
<p>This is the whole site on one page, for paper and for searching in one place. Not on it is the
<a href="../reference/api/">API reference</a>, which is for looking things up.
<a href="../">Back to the site</a></p>
</header>
<nav aria-label="Contents">
{contents}
</nav>
{chapters}
</main>
</body>
</html>
"""


def write_printable(site: Path, order: list[Page], config: MkDocsConfig) -> None:
    """Write the page into the built site."""
    pages = [page for page in order if not page.url.startswith(NOT_PRINTED)]
    names = {page.url: name_of(page) for page in pages}
    chapters = [
        printed_page((site / page.file.dest_uri).read_text("utf-8"), page, names) for page in pages
    ]
    home = (site / "index.html").read_text("utf-8")
    text = DOCUMENT.format(
        name=html_module.escape(config.site_name),
        description=html_module.escape(config.site_description or ""),
        links="\n".join(
            f'<link rel="{kind}" href="../{address}">' for kind, address in HEAD_LINK.findall(home)
        ),
        contents=contents(pages),
        chapters="\n".join(chapters),
    )
    file = site / PRINT_ADDRESS / "index.html"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, "utf-8")


def name_of(page: Page) -> str:
    """Return the id of a page's part, and the beginning of all ids in it."""
    return page.url.strip("/").replace("/", "-") or "home"


def contents(pages: list[Page]) -> str:
    """Return the table of contents: the parts of the site, and the pages of each."""
    lines = ["<ul>"]
    for section, members in groupby(pages, key=section_of):
        lines += [f"<li>{html_module.escape(section)}", "<ul>"]
        lines += [
            f'<li><a href="#{name_of(page)}">{html_module.escape(page.title)}</a></li>'
            for page in members
        ]
        lines += ["</ul>", "</li>"]
    return "\n".join([*lines, "</ul>"])


def printed_page(html: str, page: Page, names: dict[str, str]) -> str:
    """Return what a built page says, as a part of the page to print."""
    _, _, content = html.partition("<article")
    _, _, content = content.rpartition("</article>")[0].partition(">")
    article = BeautifulSoup(content, "html.parser")
    for unprinted in article.select(UNPRINTED):
        unprinted.decompose()
    for folded in article.select("details"):
        folded["open"] = ""
    for table in article.select("table"):
        table["tabindex"] = "0"  # a wide one is scrolled from the keyboard, too
    for heading in article.select("h1, h2, h3, h4, h5"):
        heading.name = f"h{int(heading.name[1]) + 1}"  # the page to print has a title of its own
    name = names[page.url]
    for tag in article.find_all(True):
        for attribute in ID_ATTRIBUTES:
            if attribute in tag.attrs:
                ids = " ".join(tag.get_attribute_list(attribute)).split()
                tag[attribute] = " ".join(f"{name}--{one}" for one in ids)
        for attribute in ADDRESS_ATTRIBUTES:
            if attribute in tag.attrs:
                tag[attribute] = readdressed(str(tag[attribute]), page.url, names)
    # Drawings refer to their own gradients, arrow heads and clips.
    text = re.sub(r"url\((&quot;|[\"']?)#", rf"url(\1#{name}--", article.decode_contents())
    return f'<section id="{name}">\n{text.strip()}\n</section>'


def readdressed(address: str, url: str, names: dict[str, str]) -> str:
    """Return an address on the page at `url` as the page to print must name it."""
    if re.match(r"[a-z]+:|//", address):
        return address
    path, _, anchor = urljoin(f"/{url}", address).removeprefix("/").partition("#")
    if path not in names:
        return get_relative_url(path, PRINT_ADDRESS) + ("#" + anchor if anchor else "")
    return f"#{names[path]}--{anchor}" if anchor else f"#{names[path]}"
