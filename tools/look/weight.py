"""Make pages light: what a browser loads and nobody sees goes, and what all pages load is one file.

The rule: nothing here changes a character that a reader sees or copies.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from mkdocs.exceptions import PluginError

# Pygments marks every token. Marked stay keywords, strings, comments, what is defined, and
# what shell and data files use; a string stays in one piece.
PLAIN_TOKEN = re.compile(r'<span class="(?:w|n|p|o|bp|go|nb|nn|sa|m|mi|mf|mh)">([^<]*)</span>')
STRING_PART = re.compile(r'<span class="(?:s1|s2|si|sb|se)">')
IN_PARTS = re.compile(r'(<span class="s">[^<]*)</span><span class="s">')
KEPT_AS_IT_IS = re.compile(r"(<(pre|script|style|textarea)\b.*?</\2>)", re.DOTALL)

STYLESHEET = re.compile(r'<link rel="stylesheet" href="([^"]+)">')
ONE_STYLESHEET = "stylesheets/all.css"


def mend(html: str) -> str:
    """Give the theme's search box the name that a screen reader says."""
    return html.replace('role="dialog">', 'role="dialog" aria-label="Search">', 1)


def slim(html: str) -> str:
    """Drop the marks of tokens that look like the text around them, and space nobody sees."""
    html = STRING_PART.sub('<span class="s">', PLAIN_TOKEN.sub(r"\1", html))
    while (joined := IN_PARTS.sub(r"\1", html)) != html:
        html = joined
    parts = KEPT_AS_IT_IS.split(html)
    # Each match gives the text before it, itself, and the name of its tag.
    return "".join(
        re.sub(r"\s*\n\s*", "\n", before) + kept
        for before, kept in zip(parts[::3], [*parts[1::3], ""], strict=True)
    )


def one_stylesheet(site: Path) -> None:
    """Join the style sheets of the pages in one file: a browser shows nothing before it has them.

    A page that was joined before, when only a part of the site is built again, is left as it is.
    """
    names: list[str] = []
    for path in sorted(site.rglob("*.html")):
        html = path.read_text("utf-8")
        head = _head(html)
        found = {match[1]: match[0] for match in STYLESHEET.finditer(head)}
        if not found or any(name.endswith(ONE_STYLESHEET) for name in found):
            continue
        # The first one, the theme's, shows the way from the page to the top of the site.
        top = next(iter(found)).partition("assets/")[0]
        if not top.startswith("/"):  # as that of the page for lost readers does
            names = [os.path.relpath(path.parent / name, site) for name in found]
        for link in found.values():
            head = head.replace(link, "", 1)
        head += f'<link rel="stylesheet" href="{top}{ONE_STYLESHEET}">'
        path.write_text(head + html[len(_head(html)) :], "utf-8")
    if names:
        styles = "".join(f"{_joined_style(site / name)}\n" for name in names)
        (site / ONE_STYLESHEET).write_text(styles, "utf-8")


def _head(html: str) -> str:
    return html.partition("</head>")[0]


def _joined_style(path: Path) -> str:
    # Addresses in a style sheet begin at its folder: those of another folder would lead elsewhere.
    text = path.read_text("utf-8")
    if path.parent.name != "stylesheets" and re.search(r"url\([\"']?(?![\"']?data:|#)", text):
        raise PluginError(f"Cannot join {path.name}: only docs/stylesheets/ may name other files.")
    return re.sub(r"/\*# sourceMappingURL=.*?\*/", "", text)
