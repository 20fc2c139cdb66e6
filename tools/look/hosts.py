"""Find what a browser would ask another host for when it shows a page.

The rule: no page asks another host for anything. What is only linked is not asked for.
"""

from __future__ import annotations

import re

from bs4 import BeautifulSoup

RESOURCES = {
    "script": ["src"],
    "img": ["src", "srcset"],
    "source": ["src", "srcset"],
    "video": ["src", "poster"],
    "audio": ["src"],
    "iframe": ["src"],
    "embed": ["src"],
    "object": ["data"],
    "image": ["href", "xlink:href"],
    "use": ["href", "xlink:href"],
    "form": ["action"],
    "input": ["src"],
    "track": ["src"],
}
# Links that a browser only reads; it loads what all the others name.
PASSIVE_LINKS = {"canonical", "prev", "next", "alternate", "license", "author", "edit"}
ELSEWHERE = re.compile(r"^\s*(?:[a-z]+:)?//", re.IGNORECASE)
URL_IN_CSS = re.compile(r"(?:url\(\s*|@import\s+)[\"']?([^\"')\s]+)")
# In scripts any address counts, whatever is done with it, but for comments and XML namespaces.
URL_IN_SCRIPT = re.compile(r"[\"'`](?:https?:)?//[\w.-]+\.[a-z]{2,}[^\"'`]*[\"'`]")


def requests_elsewhere(html: str) -> list[str]:
    """Return the addresses on other hosts that a browser would ask for when it shows a page."""
    soup = BeautifulSoup(html, "html.parser")
    found = [
        str(tag[name])
        for kind, names in RESOURCES.items()
        for tag in soup.find_all(kind)
        for name in names
        if tag.get(name)
    ]
    found += [
        str(tag["href"])
        for tag in soup.find_all("link", href=True)
        if not set(tag.get_attribute_list("rel")) <= PASSIVE_LINKS
    ]
    styles = [tag.get_text() for tag in soup.find_all("style")]
    styles += [str(tag["style"]) for tag in soup.find_all(style=True)]
    elsewhere = [address for address in found if ELSEWHERE.match(address)]
    elsewhere += [address for style in styles for address in requests_of_css(style)]
    for script in soup.find_all("script"):
        elsewhere += requests_of_script(script.get_text())
    return elsewhere


def requests_of_css(text: str) -> list[str]:
    """Return the addresses on other hosts that a style sheet loads."""
    return [address for address in URL_IN_CSS.findall(text) if ELSEWHERE.match(address)]


def requests_of_script(text: str) -> list[str]:
    """Return the addresses on other hosts that a script names."""
    return [address for address in URL_IN_SCRIPT.findall(text) if "//www.w3.org/" not in address]
