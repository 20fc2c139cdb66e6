"""The addresses of all pages, from their sources, so that a page that is not built is missed."""

from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
NOT_PAGES = {"abbreviations.md"}
EXECUTED = ("labs/", "reference/")  # where a .py is a page


def _addresses() -> list[str]:
    pages = [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")]
    pages += [
        path.relative_to(DOCS).as_posix()
        for folder in EXECUTED
        for path in DOCS.glob(f"{folder}*.py")
    ]
    return sorted(
        name.removesuffix("index.md")
        if name.endswith("index.md")
        else f"{name.rpartition('.')[0]}/"
        for name in pages
        if name not in NOT_PAGES
    )


PAGES = [*_addresses(), "print/", "404.html"]
