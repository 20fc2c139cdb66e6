"""Make the page of a lab like the others.

mkdocs-jupyter puts 590 kB of styles and 19 kB of scripts into every page, some of which would ask
another host. Kept is what the cells say and show.
"""

from __future__ import annotations

import base64
import re

from bs4 import BeautifulSoup, Comment, Tag
from mkdocs.exceptions import PluginError

DRAWN_INK = "#808081"  # in which tools/labs/matplotlibrc draws text and axes
SVG = "data:image/svg+xml;base64,"


def simplify(html: str) -> str:
    """Keep of a notebook's page what its cells say and show, in the markup of the other pages."""
    lab = Tag(name="div", attrs={"class": "lab"})
    drawings = 0
    for cell in BeautifulSoup(html, "html.parser").select(".jp-Cell[id]"):
        if prose := cell.select_one(".jp-RenderedMarkdown"):
            for link in prose.select("a.anchor-link"):
                link.attrs |= {"class": "headerlink", "title": "Permanent link"}
            lab.extend(list(prose.contents))
            continue
        box = Tag(name="div", attrs={"class": "cell"})
        if source := cell.select_one(".highlight-ipynb pre"):
            box.append(_block("language-python highlight", source))
        for output in cell.select(".jp-OutputArea-output"):
            if text := output.find("pre", recursive=False):
                box.append(_block("language-text output highlight", text))
            else:
                drawings += 1
                box.append(_figure(output, drawings))
        lab.append(box)
    return str(lab)


def _block(classes: str, pre: Tag) -> Tag:
    block, code = Tag(name="div", attrs={"class": classes}), Tag(name="code")
    code.extend(list(pre.contents))
    pre.append(code)  # the theme puts its copy button on `pre > code`
    block.append(pre)
    return block


def _figure(output: Tag, number: int) -> Tag:
    image = output.select_one(f'img[src^="{SVG}"]')
    if image is None:
        raise PluginError("A cell of a lab shows something that is neither text nor a drawing.")
    figure = Tag(name="figure")
    # As an image of its own it would not see the colours and fonts of the page.
    figure.append(drawing(base64.b64decode(image["src"].removeprefix(SVG)).decode(), number))
    return figure


def drawing(svg: str, number: int) -> Tag:
    """Return what Matplotlib drew as a part of a page: in its colours, with a name.

    Args:
        svg: the file that Matplotlib wrote.
        number: of the drawing on its page, of which no two may share an id.
    """
    names = {name: f"drawing-{number}-{place}" for place, name in enumerate(_references(svg), 1)}
    svg = re.sub(r'(?<=["#])\w+(?=[")])', lambda word: names.get(word[0], word[0]), svg)
    root = BeautifulSoup(svg[svg.index("<svg") :], "html.parser").find("svg")
    width, height = (float(side) for side in root["viewbox"].split()[2:])
    name = _title(root)
    root.attrs = {
        "role": "img",
        "aria-label": name,
        "viewbox": f"0 0 {width:g} {height:g}",
        "width": f"{1.5 * width:g}",  # so that its text is as large as that around it
        "stroke-linejoin": "round",
    }
    for unseen in root.select("style, metadata, [style='fill: none']"):
        unseen.decompose()  # and styles would be those of the whole page
    for text in root.find_all(string=True):
        if isinstance(text, Comment) or text.isspace():
            text.extract()
    for tag in root.find_all(True):
        _shorten(tag)
        if tag.get("id") not in names.values():
            tag.attrs.pop("id", None)
    for group in root.select("g, defs:empty"):
        if not group.attrs:
            group.unwrap()
    return root


def _references(svg: str) -> list[str]:
    return list(dict.fromkeys(re.findall(r'(?:url\(|href=")#(\w+)', svg)))


def _title(root: Tag) -> str:
    title = root.select_one("#title")
    if title is None:
        raise PluginError(
            "A drawing of a lab has no name for those who do not see it: expected "
            '`ax.set_title("…", gid="title")` in its cell.'
        )
    return " ".join(title.stripped_strings)


def _shorten(tag: Tag) -> None:
    """Drop the fifth digit of numbers, turns by no degrees, and fonts that are not the page's."""
    for name in ("d", "x", "y", "width", "height", "transform"):
        if name in tag.attrs:
            value = re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.4g}", tag[name])
            tag[name] = re.sub(r"rotate\(-0 .*?\)", "", " ".join(value.split()))
    if "style" in tag.attrs:
        style = re.sub(r"font-family: [^;]*;? ?", "", tag["style"]).replace(
            DRAWN_INK, "currentColor"
        )
        tag["style"] = re.sub(r"([:;]) ", r"\1", style)
    tag.attrs = {name: value for name, value in tag.attrs.items() if value != ""}
