"""Run the labs in a known setting, and make their pages like the others.

mkdocs-jupyter puts 590 kB of styles and 19 kB of scripts into every page, some of which would ask
another host; and it lets the settings of whoever builds the site reach the kernels of the labs.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from bs4 import BeautifulSoup, Tag
from mkdocs.structure.files import File
from mkdocs.utils import get_relative_url


def use_own_settings(folder: Path) -> None:
    """Point Jupyter and IPython to `folder` instead of the home directory."""
    profile = folder / "ipython" / "profile_default"
    profile.mkdir(parents=True, exist_ok=True)
    # The kernel listens on this machine only, yet warns at each start that it does not encrypt.
    (profile / "ipython_kernel_config.py").write_text("c.IPKernelApp.log_level = 'ERROR'\n")
    os.environ["IPYTHONDIR"] = str(folder / "ipython")
    os.environ["JUPYTER_CONFIG_DIR"] = str(folder / "jupyter")


def cache_directory(root: Path) -> Path:
    """Return a folder for executed labs that changes with the package."""
    sources = sorted((root / "reproducibility").glob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    return root / "build" / "labs" / digest[:12]


def is_lab(file: File) -> bool:
    """Whether mkdocs-jupyter renders this file."""
    return file.src_uri.startswith("labs/") and file.src_uri.endswith(".py")


def simplify(html: str, url: str, site: Path) -> str:
    """Share the styles of labs in files, drop the scripts, and show code as other pages do."""
    soup = BeautifulSoup(html, "html.parser")
    for style in soup.select("style:not(svg style)"):  # a drawing keeps its own
        style.replace_with(_link_to_shared(style, soup, url, site))
    for unwanted in soup.select("script, .zeroclipboard-container > clipboard-copy"):
        unwanted.decompose()
    for copied in soup.select(".clipboard-copy-txt"):
        copied.decompose()  # each cell's text, a second time
    for number, cell in enumerate(soup.select(".jp-Cell[id]"), 1):
        cell["id"] = f"cell-{number}"  # was random: two builds of one source are the same site
    for box in soup.select("div.highlight-ipynb"):
        box["class"] = "language-python highlight"
        pre = box.find("pre")
        if isinstance(pre, Tag):
            # The theme puts its copy button on `pre > code`.
            code = soup.new_tag("code")
            code.extend(list(pre.contents))
            pre.append(code)
    return str(soup)


def _link_to_shared(style: Tag, soup: BeautifulSoup, url: str, site: Path) -> Tag:
    text = style.get_text()
    name = f"assets/labs/{hashlib.sha256(text.encode()).hexdigest()[:12]}.css"
    path = site / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return soup.new_tag("link", rel="stylesheet", href=get_relative_url(name, url))
