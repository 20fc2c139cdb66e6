"""What readers get on every page takes nothing from it, and says what is true."""

import ast
import json
import re
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from mkdocs.exceptions import PluginError

from tools.look import reading, weight
from tools.look.links import broken

ROOT = Path(__file__).parents[2]
URL = "components/x/"


def text_of(html: str) -> str:
    """What a reader reads, its space between words apart."""
    return " ".join(BeautifulSoup(html, "html.parser").get_text().split())


def test_a_page_says_how_long_it_takes() -> None:
    """Two hundred words are a minute, a block is half of one, and exercises are counted apart."""
    words = "<h1>X</h1><p>" + "word " * 800 + "</p>"
    block = '<div class="highlight"><pre>' + "code " * 400 + "</pre></div>"
    assert reading.reading_time(words) == "4 minutes to read"
    assert reading.reading_time(words + block * 4) == "6 minutes to read"
    exercises = f"<h2>{reading.EXERCISES}</h2><p>{'word ' * 200}</p>"
    both = reading.reading_time(words + exercises)
    assert both == "4 minutes to read, 1 minute for the exercises"


def test_a_step_takes_as_long_as_its_page_says(site: Path) -> None:
    """Each step of the home page's learning path shows the reading time that its page shows."""
    home = BeautifulSoup((site / "index.html").read_text("utf-8"), "html.parser")
    steps = home.select(".steps li")
    for step in steps:
        page = (site / str(step.a["href"]) / "index.html").read_text("utf-8")  # type: ignore[index]
        [said] = [time.get_text() for time in step.select(".reading-time")]
        shown = BeautifulSoup(page, "html.parser").select_one(".first-line .reading-time")
        assert shown
        assert shown.get_text().startswith(f"{said} to read")
    assert len(steps) >= 16
    assert len(home.select(".steps ol > li")) == 10


def test_a_step_without_a_time_ends_the_build() -> None:
    """Only links at the start of a step get a time, and a page that has none is refused."""
    step = '<li><a href="x/">x</a> <a href="y/">y</a></li>'
    html = f'<a href="x/">x</a><div class="steps"><ol>\n{step}</ol></div>'
    timed = reading.with_times(html, {"x/": '<span class="reading-time">3 minutes to read</span>'})
    assert text_of(timed) == "x x3 minutes y"
    with pytest.raises(PluginError, match="x/, has no reading time"):
        reading.with_times(html, {"x/": ""})


def test_the_first_line_stands_under_the_title() -> None:
    """Under the title of a chapter stand its time and its files; a reference page has no time."""
    page = "<h1>X</h1><p>text</p>"
    html = reading.with_first_line(
        page, "components/x.md", {"Program": "x.py", "There": "https://a/b"}
    )
    line = BeautifulSoup(html, "html.parser").select_one("h1 + p.first-line")
    assert line
    assert line.get_text("|", strip=True) == "1 minute to read|Program|There"
    assert [link.get("download") for link in line.select("a")] == ["x.py", None]
    assert reading.with_first_line(page, "reference/x.md", {}) == page


def test_every_entry_of_the_glossary_is_understood() -> None:
    """No entry is passed over, and each tooltip is a sentence without marks."""
    source = (ROOT / reading.GLOSSARY).read_text("utf-8")
    entries = reading.glossary((ROOT / reading.GLOSSARY).read_text())
    assert len(entries) == source.count("\n:   ")
    for term, meaning, _ in entries.values():
        assert meaning.endswith((".", ":")), term
        assert not set("[]`*") & set(meaning), term
    assert any(hover for _, _, hover in entries.values())


def test_a_rare_word_is_explained_once_where_prose_uses_it() -> None:
    """The first use in prose is linked, with its meaning; code, titles and the text stay as is."""
    page = (
        "<h2>A ledger</h2><p><code>ledger</code> and <a href='#x'>a ledger</a></p>"
        "<p>Two ledgers, one ledger.</p>"
    )
    html = reading.explain_words(page, URL, ROOT)
    assert text_of(html) == text_of(page)
    links = BeautifulSoup(html, "html.parser").select("a.word")
    assert [link.get_text() for link in links] == ["ledgers"]
    assert links[0]["href"] == "../../reference/glossary/#ledger"
    assert links[0]["title"] == reading.glossary((ROOT / reading.GLOSSARY).read_text())["ledger"][1]


def test_a_link_to_the_glossary_shows_its_meaning() -> None:
    """A link that a page has itself gets the meaning, and the word is linked no second time."""
    page = '<p><a href="../../reference/glossary/#seal">seal</a>, then a seal.</p>'
    links = BeautifulSoup(reading.explain_words(page, URL, ROOT), "html.parser").select("a")
    assert [link["title"] for link in links] == [
        reading.glossary((ROOT / reading.GLOSSARY).read_text())["seal"][1]
    ]


@pytest.mark.parametrize(
    ("html", "slim"),
    [
        ('<pre><span class="n">a</span> <span class="k">if</span></pre>', None),
        ('<pre><span class="s2">"a"</span><span class="si">{</span></pre>', None),
        ("<p>a\n\n   b</p>\n\n  <p>c</p>", "<p>a\nb</p>\n<p>c</p>"),
        ("<pre>a\n\n   b</pre>\n\n<script>1\n\n2</script>", None),
    ],
)
def test_a_lighter_page_says_the_same(html: str, slim: str | None) -> None:
    """Marks that cannot be seen go, and space between elements; no character of code does."""
    light = weight.slim(html)
    assert len(light) < len(html)
    assert slim is None or light == slim
    assert text_of(light) == text_of(html)
    code, kept = (
        [tag.get_text() for tag in BeautifulSoup(text, "html.parser").select("pre, script")]
        for text in (light, html)
    )
    assert code == kept


def styled(folder: Path, name: str, *sheets: str) -> Path:
    """A page of a small site, with links to its style sheets."""
    page = folder / name
    page.parent.mkdir(parents=True, exist_ok=True)
    links = "".join(f'<link rel="stylesheet" href="{sheet}">' for sheet in sheets)
    page.write_text(f"<head>{links}</head><body>{name}</body>", "utf-8")
    return page


def test_pages_share_one_style_sheet(tmp_path: Path) -> None:
    """Each page names the joined sheet, from where it stands; the sheets are joined in order.

    A second time, as when only a part of the site is built again, nothing changes.
    """
    for name, text in {
        "assets/stylesheets/theme.css": "a{}",
        "stylesheets/site.css": "b{}",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    sheets = ("assets/stylesheets/theme.css", "stylesheets/site.css")
    pages = {
        "404.html": styled(tmp_path, "404.html", *(f"/name/{sheet}" for sheet in sheets)),
        "index.html": styled(tmp_path, "index.html", *sheets),
        "x/y/index.html": styled(tmp_path, "x/y/index.html", *(f"../../{it}" for it in sheets)),
    }
    plain = styled(tmp_path, "plain.html")
    before = plain.read_bytes()
    for _ in range(2):
        weight.one_stylesheet(tmp_path)
        assert (tmp_path / "stylesheets" / "all.css").read_text("utf-8") == "a{}\nb{}\n"
        for name, top in {
            "404.html": "/name/",
            "index.html": "",
            "x/y/index.html": "../../",
        }.items():
            links = BeautifulSoup(pages[name].read_text("utf-8"), "html.parser").select("link")
            assert [link["href"] for link in links] == [f"{top}stylesheets/all.css"]
        assert plain.read_bytes() == before


def test_a_style_sheet_that_would_lose_its_files_is_refused(tmp_path: Path) -> None:
    """One that names a file from another folder ends the build, in words."""
    styled(tmp_path, "index.html", "assets/other/x.css")
    (tmp_path / "assets" / "other").mkdir(parents=True)
    (tmp_path / "stylesheets").mkdir()
    (tmp_path / "assets" / "other" / "x.css").write_text("p{background:url('y.svg')}", "utf-8")
    with pytest.raises(PluginError, match=r"Cannot join x\.css"):
        weight.one_stylesheet(tmp_path)


def test_search_loads_no_code(site: Path) -> None:
    """The index that each first visit loads has no code, and a paragraph of an entry of the API."""
    index = json.loads((site / "search" / "search_index.json").read_text("utf-8"))
    assert not [entry["location"] for entry in index["docs"] if "<pre" in entry["text"]]
    entry_of_api = re.compile(r"reference/api/\w+/#reproducibility")
    api = [entry for entry in index["docs"] if entry_of_api.match(entry["location"])]
    assert len(api) > 100
    assert max(entry["text"].count("<p>") for entry in api) == 1


def test_every_link_leads_somewhere(site: Path) -> None:
    """Each link, anchor, picture, style and script of the built site is there."""
    assert broken(site, "https://owner.example/name/") == []


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    """A missing page, place, picture and path of the site's own address are named, one by one."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "index.html").write_text('<h1 id="here">A</h1><a href="../">up</a>')
    (tmp_path / "index.html").write_text(
        '<a href="a/#here">1</a><a href="a/#gone">2</a><a href="b/">3</a><img src="c.png">'
        '<a href="/name/a/">4</a><a href="/name/d/">5</a><a href="https://elsewhere.example">6</a>'
        '<a href="https://owner.example/name/e/">7</a><a href="#x">8</a>'
    )
    assert broken(tmp_path, "https://owner.example/name/") == [
        "index.html: #x",
        "index.html: /name/d/",
        "index.html: a/#gone",
        "index.html: b/",
        "index.html: c.png",
        "index.html: https://owner.example/name/e/",
    ]


# Said of any page, so of none: in a table of contents or search nobody knows what is meant.
BARE = """A program that goes wrong|A script that goes wrong|A resume that goes wrong
The program that goes right|The script that goes right|The rule|The command that finds it|How
How it works|Where it ends|Limits|What it cannot see|What it costs|What is recorded|Speed|State
What came of it|Your own script|Try|Data|Keys|Versions|In CI|A program|A notebook|Two fixtures
Four answers|One machine|The run|Where it is|Try it"""


def headings() -> list[tuple[Path, str]]:
    """Every heading of every page and lab, without its anchor."""
    found = []
    for path in sorted((ROOT / "docs").rglob("*.md")):
        code = re.compile(r"^( *)(```+).*?^\1\2", re.MULTILINE | re.DOTALL)
        text = code.sub("", path.read_text("utf-8"))
        found += [
            (path, re.sub(r" *\{ #.*\}$", "", line))
            for line in re.findall(r"^##+ (.*)$", text, re.MULTILINE)
        ]
    for path in sorted((ROOT / "docs" / "labs").glob("*.py")):
        lines = re.findall(r"^# ##+ (.*)$", path.read_text("utf-8"), re.MULTILINE)
        found += [(path, line) for line in lines]
    return found


def test_a_heading_names_its_subject() -> None:
    """No page has a heading that says nothing without its page, and no page has one twice."""
    bare = set(re.split(r"[|\n]", BARE))
    found = headings()
    assert [(path.name, text) for path, text in found if text in bare] == []
    assert len(found) > 300
    assert len(set(found)) == len(found)


NUMBERS = ["No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine"]


def test_what_a_page_says_is_marked_is_marked() -> None:
    """Where the text before a block counts the statements or lines marked in it, so many are."""
    counted = 0
    for path in sorted((ROOT / "docs").rglob("*.md")):
        text = path.read_text("utf-8")
        for fence in re.finditer(r'(?m)^```python hl_lines="([\d -]+)"\n', text):
            lines, code = fence[1], text[fence.end() : text.index("\n```", fence.end())]
            before = text[max(fence.start() - 600, 0) : fence.start()]
            said = re.search(r"(?i)(two|three|four|five) (lines|statements), marked", before)
            if said is None:
                continue
            ends = [[int(end) for end in run.split("-")] for run in lines.split()]
            marked = {line for run in ends for line in range(run[0], run[-1] + 1)}
            if said[2] == "statements":
                nodes = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.stmt)]
                marked &= {node.lineno for node in nodes}
            assert len(marked) == NUMBERS.index(said[1].capitalize()), (path, said[0], lines)
            counted += 1
    assert counted


def test_as_many_bounds_are_missed_as_the_page_says() -> None:
    """Below the table of speeds stands how many of its bounds are missed, and so many are."""
    page = (ROOT / "docs/reference/measurements.md").read_text("utf-8")
    text = page.partition("## What the same bits on any layout cost")[0]
    rows = re.findall(r"(?m)^\| .+ \| ([\d.]+)[^|]* \| (at most|at least) ([\d.]+)[^|]* \|$", text)
    assert len(rows) > 10
    missed = [
        row
        for row in rows
        if (float(row[0]) > float(row[2]) if row[1] == "at most" else float(row[0]) < float(row[2]))
    ]
    [said] = re.findall(r"(\w+) bounds? (?:is|are) missed", text)
    assert NUMBERS.index(said) == len(missed), missed
