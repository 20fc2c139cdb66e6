"""What the site's build does beyond MkDocs: each hook is a line or two that calls a function.

MkDocs loads this file through `hooks:` in mkdocs.yml.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

ROOT = Path(__file__).parent.parent
if str(ROOT) not in sys.path:  # the program `mkdocs` does not put it there
    sys.path.append(str(ROOT))

from tools import (  # noqa: E402
    addresses,
    cards,
    clone,
    downloads,
    executed,
    labs,
    notebooks,
    offline,
    printable,
    reading,
    rendered,
    weight,
)
from tools.pages import CONTINUES, FENCE, OUTPUT  # noqa: E402

TAKE_AWAY = "<!-- take-away -->"  # where a page lists what readers may take away

# Empty, unless the site is served to whoever writes it.
serving: list[tuple[executed.Shown, rendered.Rendered]] = []
order: list[Page] = []


def on_startup(command: str, dirty: bool) -> None:
    """Start the labs' kernels with our settings only, not with those of whoever builds."""
    labs.use_own_settings(ROOT / "build")
    if command == "serve":
        serving.append((executed.Shown(), rendered.Rendered()))


def on_pre_build(config: MkDocsConfig) -> None:
    """While serving, run no lab: show those that `make serve` has run with everything as it is."""
    for shown, kept in serving:
        shown.look(ROOT)
        kept.look(ROOT)


def on_pre_page(page: Page, config: MkDocsConfig, files: Files) -> Page:
    """While serving, render only what changed."""
    for _, kept in serving:
        if not labs.is_lab(page.file):
            kept.attach(page)
    return page


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what readers take away: each chapter and lab as a program and as a notebook."""
    for file in list(files):
        source = Path(file.abs_src_path or "")
        if file.src_uri.startswith(downloads.CHAPTERS) and file.src_uri.endswith(".md"):
            if program := downloads.script(source, ROOT):
                add(files, config, file, ".py", program)
                add(files, config, file, ".ipynb", notebooks.chapter(source, ROOT, config))
        elif labs.is_lab(file):
            add(files, config, file, ".ipynb", notebooks.lab(source, ROOT, config))
    return files


def add(files: Files, config: MkDocsConfig, beside: File, suffix: str, content: str) -> None:
    """Add a generated file beside a page's source."""
    name = beside.src_uri.rpartition(".")[0] + suffix
    files.append(File.generated(config, name, content=content))


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> Navigation:
    """Keep the pages in their order."""
    order[:] = nav.pages
    return nav


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Mark outputs, and drop the tags; a lab has its description elsewhere."""
    if labs.is_lab(page.file):
        page.meta["description"] = labs.description(Path(page.file.abs_src_path or ""))
    if TAKE_AWAY in markdown:
        table = notebooks.table(order, page.file, files, config)
        markdown = markdown.replace(TAKE_AWAY, table)
    return clone.with_address(mark_outputs(markdown), config.repo_url or "")


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Simplify a lab; say under the title what a page takes and gives; explain its words."""
    if labs.is_lab(page.file):
        html = labs.simplify(html)
        for shown, _ in serving:
            html = shown.say(html, Path(page.file.abs_src_path or ""))
    html = reading.explain_words(html, page.url, ROOT)
    return reading.first_line(html, page.file.src_uri, take_away(page.file, config, files))


def take_away(file: File, config: MkDocsConfig, files: Files) -> dict[str, str]:
    """Return the links that stand under a page's title: their texts and addresses."""
    stem = file.src_uri.rpartition(".")[0]
    name = stem.rpartition("/")[2]
    links = {
        f"{kind} <code>{name}{suffix}</code>": get_relative_url(made.url, file.url)
        for kind, suffix in (("Program", ".py"), ("Notebook", ".ipynb"))
        if (made := files.get_file_from_path(stem + suffix)) and made is not file
    }
    if (colab := notebooks.colab(config, f"{stem}.ipynb")) and links:
        links["Open in Colab"] = colab
    return links


def on_page_context(context: dict, page: Page, config: MkDocsConfig, nav: Navigation) -> dict:
    """Tell the theme where the page's social card will be."""
    context["card"] = cards.address(page, config)
    return context


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Mend what the theme leaves open; drop what a browser loads and nobody sees."""
    return weight.slim(weight.mend(output))


def on_post_template(output: str, template_name: str, config: MkDocsConfig) -> str:
    """The same for the page of a lost reader."""
    return weight.slim(weight.mend(output)) if template_name.endswith(".html") else output


def on_post_build(config: MkDocsConfig) -> None:
    """Write what is made of all pages together."""
    site = Path(config.site_dir)
    weight.slim_search(site)
    weight.one_stylesheet(site)
    addresses.write(site, order, config)
    if not serving:  # four seconds that a writer would wait after each change
        cards.write(site, order, config)
        printable.write(site, order, config)
        offline.write(site)  # holds all the others


def mark_outputs(markdown: str) -> str:
    """Give the fence after each output tag the class `output`, and remove all tags."""
    lines, is_output = [], False
    for line in markdown.split("\n"):
        fence = FENCE.match(line)
        if line.strip() in (CONTINUES, OUTPUT):
            is_output = line.strip() == OUTPUT
            line = ""
        elif is_output and fence:
            language, _, rest = fence["info"].strip().partition(" ")
            attributes = " ".join(filter(None, [f".{language}", ".output", rest]))
            line, is_output = f"{fence['indent']}{fence['ticks']} {{{attributes}}}", False
        lines.append(line)
    return "\n".join(lines)
