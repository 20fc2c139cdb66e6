"""Write the API pages, one for each room of the package, and the map and the drawing in
CONTRIBUTING.

    python -m tools.api

All of it is made from docstrings and the stub. Tests compare what stands there with what this
returns, so a name that is exported is on its page, and a file is on the map.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "reproducibility"
FOLDER = ROOT / "docs" / "reference" / "api"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
MAP = '```text title="reproducibility/"\n'
# A code host draws it, and elsewhere its lines can be read; CONTRIBUTING is no page of the site.
DRAWING = "```mermaid\n"
# The pages in reading order. What is beside the rooms has a page of its own.
PAGES = (
    "errors",
    "keys",
    "same",
    "machine",
    "scale",
    "storage",
    "recording",
    "reference",
    "explain",
    "evidence",
    "script",
    "testing",
)
ROOMS = (
    *PAGES[:-2],
    "watch",
    *PAGES[-2:],
    "exercise",
    "cli",
)  # and the files beside them, lowest first


def exported() -> dict[str, list[str]]:
    """Return the names of the stub by the page they belong to, in the order of the stub.

    Those of `testing` are imported from there, and are named so.
    """
    found: dict[str, list[str]] = {name: [] for name in PAGES}
    for node in ast.parse((PACKAGE / "__init__.pyi").read_text("utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            found[node.module.split(".")[0]] += [alias.name for alias in node.names]
    door = ast.parse((PACKAGE / "testing" / "__init__.py").read_text("utf-8"))
    inside = [node.names for node in door.body if isinstance(node, ast.ImportFrom)]
    found["testing"] = [f"testing.{alias.name}" for names in inside for alias in names]
    return found


def docstring(name: str) -> str:
    """Return the docstring of a room, or of a module beside the rooms."""
    room = PACKAGE / name / "__init__.py"
    tree = ast.parse((room if room.exists() else PACKAGE / f"{name}.py").read_text("utf-8"))
    return ast.get_docstring(tree) or ""


def question(name: str) -> str:
    """Return what a room answers: the first line of its docstring, without its full stop."""
    return docstring(name).splitlines()[0].rstrip(".")


def house() -> str:
    """Return the map of the package: a line for each file, in the order of imports."""
    lines = []
    for name in ROOMS:
        room = PACKAGE / name
        lines.append(f"{f'{name}/' if room.is_dir() else name:20}{opening_line(room)}")
        if room.is_dir():
            order = re.findall(r"`(\w+)`", docstring(name))
            lines += [f"  {file:18}{opening_line(room / file)}" for file in order]
    return "\n".join(lines)


def opening_line(path: Path) -> str:
    """Return the first line of the docstring of a room or a file."""
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return (ast.get_docstring(ast.parse(file.read_text("utf-8"))) or "").splitlines()[0]


def imported_rooms(name: str) -> set[str]:
    """Return the rooms, and the files beside them, that a room imports."""
    room = PACKAGE / name
    found = set()
    for path in room.glob("*.py") if room.is_dir() else [room.with_suffix(".py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                package, _, inner = node.module.partition(".")
                names = [inner] if inner else [alias.name for alias in node.names]
                found |= {each.split(".")[0] for each in names if package == PACKAGE.name}
    return found & {*ROOMS} - {name}


def import_graph() -> str:
    """Return the imports between rooms as a Mermaid drawing, whose arrows go down.

    An arrow is left out where others lead the same way: `cli` imports `errors`, too.
    """
    reached: dict[str, set[str]] = {}
    arrows = []
    for name in ROOMS:  # lowest first, so that what is imported is known
        direct = imported_rooms(name)
        further = set().union(*(reached[each] for each in direct))
        reached[name] = direct | further
        arrows.append([f"  {name} --> {each}" for each in ROOMS if each in direct - further])
    note = "%% An arrow leads to what is imported; one that follows from others is left out."
    return "\n".join(
        ["flowchart TD", f"  {note}", *(line for group in arrows[::-1] for line in group)]
    )


def with_map(text: str) -> str:
    """Return CONTRIBUTING with the map and the drawing as they are now."""
    for opening, content in ((MAP, house()), (DRAWING, import_graph())):
        before, _, rest = text.partition(opening)
        text = before + opening + content + "\n" + rest[rest.index("```") :]
    return text


def index_rows() -> str:
    """Return the rows of the index: room, question and names."""
    rows = []
    for name, names in exported().items():
        asked = question(name)
        listed = ", ".join(f"`{each}`" for each in names)
        rows.append(
            f"| [{name}]({name}.md) | {asked}{'' if asked[-1] == '?' else '.'} | {listed} |"
        )
    return "\n".join(rows)


def room_page(name: str, names: list[str]) -> str:
    """Return the text of a page: the question, the rule, the reading order, and each name."""
    text = docstring(name)
    asked = question(name)
    rest = "\n".join(line for line in text.splitlines()[1:] if not line.startswith("Chapter: "))
    chapter = next(
        line.removeprefix("Chapter: docs/")
        for line in text.splitlines()
        if line.startswith("Chapter: ")
    )
    described = asked.replace('"', "'")
    lines = [
        "---",
        f'title: "{name}"',
        f'description: "API of reproducibility, {name}: {described}"',
        "search:",
        "  boost: 0.1",
        "---",
        "",
        f"# {name}",
        "",
        f"**{asked}{'' if asked.endswith('?') else '.'}**",
        "",
        rest.strip().split("\n\n    ")[0],
        "",
        f"Taught in [its chapter](../../{chapter}).",
        "",
    ]
    lines += [
        f"::: reproducibility.{each}\n    options:\n      heading_level: 2\n" for each in names
    ]
    return "\n".join(lines)


def pages() -> dict[str, str]:
    """Return the text of each page by its file's name."""
    index = (FOLDER / "index.md").read_text("utf-8")
    rows = re.sub(
        r"(?<=\|---\|---\|---\|\n).*?(?=\n\n)", index_rows().replace("\\", r"\\"), index, flags=re.S
    )
    return {"index.md": rows} | {f"{n}.md": room_page(n, names) for n, names in exported().items()}


def main() -> None:
    """Write them."""
    for name, text in pages().items():
        (FOLDER / name).write_text(text, "utf-8")
    CONTRIBUTING.write_text(with_map(CONTRIBUTING.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
