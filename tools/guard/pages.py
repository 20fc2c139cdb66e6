"""Read the code blocks of a Markdown page, and refuse whatever could be shown and not checked.

The rule: every fence is run, or is the checked output of one that is, or is a titled listing in a
language that nobody would run. There is no fourth kind, and no mark that skips one.

Two tags exist, each alone on its line: CONTINUES puts the next block into the chain of the block
before it (same module, same directory), OUTPUT says that the next fence is what that block prints.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import tomllib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tools.story.stages import downloads_of_story, is_change

CONTINUES = "<!--pytest-codeblocks:cont-->"
OUTPUT = "<!--pytest-codeblocks:expected-output-->"
# A block begins with this file in its directory: one that the site offers for download.
DOWNLOADED = re.compile(r"<!--pytest-codeblocks:downloaded=(?P<address>story/[\w/]+\.py)-->")

RUN = ("python", "sh", "bash")
# Languages of outputs and listings. Anything else (`py`, `pycon`, no language at all) is refused.
DATA = ("text", "json", "toml", "yaml", "makefile", "markdown", "diff")
CONSOLE_LIST = Path(__file__).with_name("console_blocks.toml")

FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,}|~{3,})(?P<info>.*)$")
NESTED = re.compile(r"^\s*(?:[-*+>]|\d+[.)])\s+.*?(?:`{3,}|~{3,})\s*[\w{]*\s*$")
INFO = re.compile(r"^(?P<language>[a-z]+)(?: +(?:title|hl_lines|linenums)=\"[^\"`]*\")*$")


class PageError(Exception):
    """A page cannot be checked; each problem names its line."""


@dataclass
class Output:
    """What a page shows as the output of a block; `line` is that of the opening fence."""

    line: int
    language: str
    text: str
    indent: int


@dataclass
class Block:
    """A block that runs; `line` is that of the opening fence, so its code starts on the next."""

    line: int
    language: str
    code: str
    output: Output | None = None
    downloaded: str | None = None


@dataclass
class Listing:
    """A fence that is shown and not run."""

    line: int
    language: str
    text: str


@dataclass
class Page:
    """The blocks of a page: chains of those that run, in order, and its listings."""

    name: str
    sha256: str
    chains: list[list[Block]] = field(default_factory=list)
    listings: list[Listing] = field(default_factory=list)

    @property
    def blocks(self) -> list[Block]:
        """Every block that runs, from top to bottom."""
        return [block for chain in self.chains for block in chain]


@dataclass
class Tag:
    """CONTINUES, OUTPUT or DOWNLOADED, alone on its line."""

    line: int
    text: str


@dataclass
class Problem:
    """Why a page is refused, and where."""

    line: int
    text: str


@dataclass
class Fence:
    """A fence as it stands in the source, before it is known what it is for."""

    line: int
    indent: int
    info: str
    text: str


def read_page(path: Path, root: Path) -> Page:
    """Parse one Markdown file, or raise PageError with every problem it has."""
    source = path.read_bytes()
    page = Page(path.relative_to(root).as_posix(), hashlib.sha256(source).hexdigest())
    problems = list(_parse(source.decode("utf-8").replace("\r\n", "\n"), page))
    if problems:
        raise PageError("\n".join(f"{page.name}:{bad.line}: {bad.text}" for bad in problems))
    return page


def _parse(source: str, page: Page) -> Iterator[Problem]:
    # Fills `page`. `tag` waits for its fence; `owner` is the block that a tag would belong to: the
    # one before it, and none once a listing comes in between, unless that is the diff of a cure.
    tag: Tag | None = None
    owner: Block | None = None
    downloaded: str | None = None
    for item in _items(source):
        if isinstance(item, Problem):
            yield item
        elif isinstance(item, Tag) and (found := DOWNLOADED.fullmatch(item.text)):
            downloaded = found["address"]
            if downloaded not in downloads_of_story():
                yield Problem(item.line, f"the site offers no {downloaded}")
        elif isinstance(item, Tag):
            if owner is None:
                yield Problem(item.line, f"{item.text} must follow a python, sh or bash block")
            elif not _stands_before_fence(source, item.line):
                yield Problem(item.line, f"{item.text} must stand directly before a fence")
            else:
                tag = item
        else:
            owner = yield from _place(item, tag, owner, page)
            tag = None
            if downloaded and owner and owner is page.chains[-1][-1] and not owner.output:
                owner.downloaded = downloaded
            elif downloaded:
                yield Problem(item.line, "a downloaded file must stand before a block that runs")
            downloaded = None


def _place(
    fence: Fence, tag: Tag | None, owner: Block | None, page: Page
) -> Generator[Problem, None, Block | None]:
    # Puts one fence where it belongs in `page`; returns the block that the next tag belongs to.
    language, problem = _language(fence)
    if problem:
        yield Problem(fence.line, problem)
        return None
    if tag and owner and tag.text == OUTPUT:
        if language not in DATA:
            yield Problem(fence.line, f"an output is one of {', '.join(DATA)}, not {language}")
        elif owner.output:
            yield Problem(fence.line, f"the block at line {owner.line} already shows its output")
        owner.output = Output(fence.line, language, fence.text, fence.indent)
        return owner
    if language in RUN:
        block = Block(fence.line, language, fence.text)
        if tag:
            page.chains[-1].append(block)
        else:
            page.chains.append([block])
        if "--8<--" in fence.text:
            yield Problem(fence.line, "a block that runs cannot include a file: write its text")
        return block
    if tag:
        yield Problem(tag.line, f"{CONTINUES} must stand before a python, sh or bash block")
    yield from (Problem(fence.line, text) for text in _listing_problems(page.name, fence, language))
    page.listings.append(Listing(fence.line, language, fence.text))
    return owner if language == "diff" else None


def _items(source: str) -> Iterator[Fence | Tag | Problem]:
    # What matters on a page, from top to bottom.
    if source.startswith("\ufeff"):
        yield Problem(1, "the file starts with a byte order mark: save it without")
        source = source[1:]
    lines = source.split("\n")
    number = 0
    while number < len(lines):
        text = lines[number]
        number += 1
        opening = FENCE.match(text)
        if not opening:
            yield from _tags(number, text)
            continue
        indent, ticks = opening["indent"], opening["ticks"]
        try:
            end = lines.index(indent + ticks, number)
        except ValueError:
            end = next((i for i in range(number, len(lines)) if lines[i].strip() == ticks), -1)
            if end < 0:
                yield Problem(number, f"the fence is not closed by {ticks} at the same indentation")
                return
        if ticks[0] == "~":
            yield Problem(number, "a ~~~ fence is never run: use ```")
        else:
            body, problem = _dedent(lines[number:end], len(indent), ticks)
            if problem:
                yield Problem(number, problem)
            else:
                yield Fence(number, len(indent), opening["info"].strip(), body)
        number = end + 1


def _tags(number: int, text: str) -> Iterator[Tag | Problem]:
    # Tags count only alone on their line; any other comment could hide a fence or a skip mark.
    stripped = text.strip()
    if stripped in (CONTINUES, OUTPUT) or DOWNLOADED.fullmatch(stripped):
        yield Tag(number, stripped)
    elif "pytest" in text and "<!--" in text:
        yield Problem(
            number, f"{stripped!r} is no tag: only {CONTINUES} and {OUTPUT} are, alone on a line"
        )
    elif "<!--" in text and "-->" not in text.split("<!--", 1)[1]:
        yield Problem(number, "a comment over several lines can hide a block that runs: remove it")
    elif re.search(r"<(pre|samp|textarea|xmp|listing)\b", text, re.IGNORECASE):
        yield Problem(number, "code in raw HTML is never run: use a fence")
    elif NESTED.match(text):
        yield Problem(number, "a fence must begin its own line: put it below, indented")


def _dedent(lines: list[str], indent: int, ticks: str) -> tuple[str, str | None]:
    for text in lines:
        if text.strip() and text[:indent].strip():
            return "", "a line of the block is indented less than its fence"
        if text.strip().startswith(ticks):
            return "", f"a line inside begins with {ticks}: open and close with one more backtick"
        if "\t" in text:
            return "", "a tab is shown as spaces: write spaces"
    return "".join(f"{text[indent:]}\n" for text in lines), None


def _language(fence: Fence) -> tuple[str, str | None]:
    info = INFO.match(fence.info)
    known = (*RUN, *DATA, "console")
    if info and info["language"] in known:
        return info["language"], None
    return "", (
        f"```{fence.info} is neither run nor a known listing: expected one of {', '.join(known)}, "
        'then only title="…", hl_lines="…" or linenums="…"'
    )


def _stands_before_fence(source: str, line: int) -> bool:
    # `line` counts from 1, so it is also the index of the line after it.
    following = next((text for text in source.split("\n")[line:] if text.strip()), "")
    return FENCE.match(following) is not None


def _listing_problems(page: str, fence: Fence, language: str) -> Iterator[str]:
    if language == "console":
        if (page, fence.text) not in {(entry["page"], entry["text"]) for entry in console_list()}:
            yield f"a console block must stand, with its reason, in tools/guard/{CONSOLE_LIST.name}"
        return
    if not re.search(r'title="[^"]+"', fence.info):
        yield (
            f"this {language} block is compared with nothing: put {OUTPUT} before it if a block "
            'prints it, or title="…" on it if it is a listing'
        )
    if problem := code_in_listing(language, fence.text):
        yield problem


def console_list() -> list[dict[str, str]]:
    """Return the commands that cannot run in the tests: page, exact text, reason."""
    entries: list[dict[str, str]] = tomllib.loads(CONSOLE_LIST.read_text("utf-8")).get("block", [])
    return entries


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


# The first words that make a line of a `text` listing a command.
COMMANDS = (
    "python|python3|pip|pip3|uv|make|git|cd|export|mkdir|rm|cp|mv|cat|ls|curl|source|pytest|mkdocs|"
    "reproducibility|srun|sbatch|mpirun|sudo|apt-get|env"
)
SHELL_LINE = re.compile(rf"^\s*(?:[$%] \S|(?:\S*/)?(?:{COMMANDS}) +[-\w./]+)", re.MULTILINE)
PYTHON_LINE = re.compile(
    r"^\s*(?:>>> |import \w+|from [\w.]+ import |def \w+\(.*:\s*$|class \w+.*:\s*$|@\w+|"
    r"(?:print|assert)\b ?\()",
    re.MULTILINE,
)
PYTHON_NODES = (
    ast.Import,
    ast.ImportFrom,
    ast.FunctionDef,
    ast.ClassDef,
    ast.Call,
    ast.For,
    ast.While,
    ast.With,
    ast.Assert,
)


def code_in_listing(language: str, text: str) -> str | None:
    """Say why a listing is not what its language claims, or return None."""
    if language == "diff" and is_change(text):
        return None  # the script ran as it was before, and as it is after
    if language == "json" and not _parses(json.loads, text):
        return "this is not JSON"
    if language == "toml" and not _parses(tomllib.loads, text):
        return "this is not TOML"
    if language in ("json", "toml", "yaml", "makefile"):
        # Recipes and CI steps hold commands by right; none of these holds Python.
        return "this looks like Python: it must be a python block" if _is_python(text, ()) else None
    if _is_python(text, (ast.Assign, ast.AugAssign)):
        return "this looks like Python: it must be a python block"
    if SHELL_LINE.search(text):
        return "this looks like a shell command: it must be a sh block, or a listed console block"
    return None


def _is_python(text: str, more_nodes: tuple[type[ast.AST], ...]) -> bool:
    if PYTHON_LINE.search(text):
        return True
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    return any(isinstance(node, PYTHON_NODES + more_nodes) for node in ast.walk(tree))


def _parses(parser: Callable[[str], object], text: str) -> bool:
    try:
        parser(text)
    except ValueError:
        return False
    return True
