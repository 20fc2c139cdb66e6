"""What the site's build does beyond MkDocs: each hook is a line or two that calls a function.

MkDocs loads this file through `hooks:` in mkdocs.yml.
"""

from __future__ import annotations

import sys
from pathlib import Path

from jinja2 import Environment
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
if str(ROOT) not in sys.path:  # the program `mkdocs` does not put it there
    sys.path.append(str(ROOT))

from tools.guard.pages import mark_outputs  # noqa: E402
from tools.labs import markup, settings  # noqa: E402
from tools.look import addresses, cards, clone, reading, searching, weight  # noqa: E402
from tools.reuse.lab_outputs import LabsShown  # noqa: E402
from tools.reuse.rendered import RenderedPages  # noqa: E402
from tools.takeaway import downloads, offline, printable  # noqa: E402

# Empty, unless the site is served to whoever writes it.
serving: list[tuple[LabsShown, RenderedPages]] = []
order: list[Page] = []


def on_startup(command: str, dirty: bool) -> None:
    """Start the labs' kernels with our settings only, not with those of whoever builds."""
    settings.use_own_settings(ROOT / "build")
    if command == "serve":
        serving.append((LabsShown(), RenderedPages()))


def on_pre_build(config: MkDocsConfig) -> None:
    """While serving, run no lab: show those that `make serve` has run with everything as it is."""
    for shown, kept in serving:
        shown.choose(ROOT)
        kept.note_inputs(ROOT)


def on_pre_page(page: Page, config: MkDocsConfig, files: Files) -> Page:
    """While serving, render only what changed."""
    for _, kept in serving:
        if not settings.is_lab(page.file):
            kept.attach(page)
    return page


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what readers take away: each chapter and lab as a program and as a notebook."""
    downloads.add_downloads(files, ROOT, config)
    return files


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> Navigation:
    """Keep the pages in their order."""
    order[:] = nav.pages
    return nav


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Mark outputs, and drop the tags; a lab has its description elsewhere."""
    if settings.is_lab(page.file):
        page.meta["description"] = settings.description(Path(page.file.abs_src_path or ""))
    markdown = downloads.with_table(markdown, order, page.file, files, config)
    markdown = downloads.with_scripts(markdown)
    return clone.with_address(mark_outputs(markdown), config.repo_url or "")


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Simplify a lab; say under the title what a page takes and gives; explain its words."""
    if settings.is_lab(page.file):
        html = markup.simplify(html)
        for shown, _ in serving:
            html = shown.mark_not_run(html, Path(page.file.abs_src_path or ""))
    html = reading.explain_words(html, page.url, ROOT)
    links = downloads.links_of_page(page.file, files, config)
    return reading.with_first_line(html, page.file.src_uri, links)


def on_env(env: Environment, config: MkDocsConfig, files: Files) -> None:
    """Say on the home page how long each step of the learning path takes, now that all is known."""
    home, *others = order
    home.content = reading.with_times(home.content or "", {p.url: p.content or "" for p in others})


def on_page_context(context: dict, page: Page, config: MkDocsConfig, nav: Navigation) -> dict:
    """Tell the theme where the page's social card will be."""
    context["card"] = cards.card_address(page, config)
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
    searching.write_search(site, order)
    weight.one_stylesheet(site)
    addresses.write_addresses(site, order, config)
    if not serving:  # four seconds that a writer would wait after each change
        cards.write_cards(site, order, config)
        printable.write_printable(site, order, config)
        offline.write_archive(site)  # holds all the others
