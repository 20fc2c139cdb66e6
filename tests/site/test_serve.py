"""What a writer sees while the site is served is what a build would publish, and never stale."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from mkdocs.structure.pages import Page
from mkdocs_jupyter import convert

from reproducibility.machine.environment import KNOWN_FACTS
from tests.building import ADDRESSES
from tools import serve
from tools.reuse import inputs, lab_outputs

ROOT = Path(__file__).parents[2]
CONFIG = """\
site_name: Two pages
theme: mkdocs
hooks: [keeping.py]
validation:
  links: {anchors: warn}
markdown_extensions:
  - toc: {permalink: true}
  - pymdownx.snippets:
      base_path: [!relative $config_dir]
      auto_append: [docs/words.txt]
      check_paths: true
  - abbr
"""
KEEPING = f"""\
import sys
from pathlib import Path

sys.path.append({str(ROOT)!r})
from tools.reuse.rendered import RenderedPages

kept = RenderedPages()

def on_pre_build(config):
    kept.note_inputs(Path(__file__).parent)

def on_pre_page(page, config, files):
    kept.attach(page)
    return page
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with a site of three pages, a lab and what a lab depends on."""
    files = {
        "mkdocs.yml": CONFIG,
        "keeping.py": KEEPING,
        "CHANGELOG.md": "# Changelog\n",
        "requirements.lock": "jax==1\n",
        "pyproject.toml": "",
        "docs/index.md": "# Home\n\nTo the [place](other.md#a-place) of ULP.\n",
        "docs/other.md": "# Other\n\n## A place\n\nBack [home](index.md). Dry.\n",
        "docs/third.md": '# Third\n\n--8<-- "docs/included.txt"\n',
        "docs/included.txt": "Included.\n",
        "docs/words.txt": "*[ULP]: unit in the last place\n",
        "docs/labs/adding.py": "# %%\nprint(6 * 7)\n",
        "docs/labs/nothing.py": "# %%\nprint()\n",
        "reproducibility/keys.py": "seed = 1\n",
        "tools/labs/settings.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_digest_is_one_of_names_and_bytes(root: Path) -> None:
    """A byte, a name, a new and a removed file change it; a time and what Python caches do not."""
    before = inputs.files_digest(root, ["docs", "mkdocs.yml"])
    os.utime(root / "mkdocs.yml", (1, 1))
    (root / "docs" / "__pycache__").mkdir()
    (root / "docs" / "__pycache__" / "x.pyc").write_text("x")
    assert inputs.files_digest(root, ["docs", "mkdocs.yml"]) == before

    found = {before}
    for change in (
        lambda: (root / "mkdocs.yml").write_text("x"),
        lambda: (root / "docs" / "new.md").write_text(""),
        lambda: (root / "docs" / "new.md").rename(root / "docs" / "old.md"),
        lambda: (root / "docs" / "index.md").unlink(),
    ):
        change()
        found.add(inputs.files_digest(root, ["docs", "mkdocs.yml"]))
    assert len(found) == 5


def test_every_setting_that_is_recorded_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that the environment of a run records, and an installed version, change it."""
    names = {
        name.removeprefix("env.")
        for facts in KNOWN_FACTS.values()
        for name in facts
        if "env." in name
    }
    assert "NPROC" in names
    before = inputs.surroundings_digest()
    for name in (*sorted(names), "XLA_FLAGS", "JAX_ENABLE_X64", "PYTHONHASHSEED"):
        with monkeypatch.context() as changed:
            changed.setenv(name, "another")
            assert inputs.surroundings_digest() != before, name
    with monkeypatch.context() as changed:
        changed.setenv("WINDOWID", "another")  # the control: a window is no setting
        assert inputs.surroundings_digest() == before
    installed = list(inputs.distributions())
    monkeypatch.setattr(inputs, "distributions", lambda: installed[1:])
    assert inputs.surroundings_digest() != before


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("reproducibility/keys.py", {"adding", "nothing"}),
        ("tools/labs/settings.py", {"adding", "nothing"}),
        ("requirements.lock", {"adding", "nothing"}),
        ("docs/labs/adding.py", {"adding"}),
        ("docs/index.md", set()),
    ],
)
def test_a_lab_is_kept_for_all_that_it_depends_on(root: Path, name: str, changed: set[str]) -> None:
    """The package, the lock, what executes labs and its own source move a lab; a page does not."""
    before = lab_outputs.places(root)
    (root / name).write_text("# changed\n")
    after = lab_outputs.places(root)
    assert {lab.stem for lab in after if after[lab] != before[lab]} == changed
    assert sorted(lab.stem for lab in after) == ["adding", "nothing"]


def test_a_lab_is_executed_and_kept(root: Path) -> None:
    """What a cell printed is in the notebook that is kept, and only that lab is missing no more."""
    lab, other = root / "docs/labs/adding.py", root / "docs/labs/nothing.py"
    assert lab_outputs.missing(root).keys() == {lab, other}
    lab_outputs.execute([lab], root)
    assert lab_outputs.missing(root).keys() == {other}
    notebook = nbformat.read(lab_outputs.places(root)[lab], as_version=4)
    assert notebook.cells[0].outputs[0].text == "42\n"


def test_what_changed_while_a_lab_ran_is_not_kept(root: Path) -> None:
    """An execution during which the package changed is dropped, since it saw nobody knows what."""
    lab, package = root / "docs/labs/adding.py", root / "reproducibility/keys.py"
    lab.write_text(f"# %%\nopen({str(package)!r}, 'a').write('seed = 2')\n")
    lab_outputs.execute([lab], root)
    assert not list(root.glob("build/labs/*"))


def test_a_lab_that_fails_is_not_kept(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A lab with an error is named and leaves nothing to show; the labs around it are kept."""
    lab, other, gone = (root / f"docs/labs/{name}.py" for name in ("adding", "nothing", "gone"))
    lab.write_text("# %%\n1 / 0\n")
    gone.write_text(f"# %%\nimport os\nos.unlink({str(gone)!r})\n")
    assert lab_outputs.execute([lab, gone, other], root) == [lab]
    assert list(root.glob("build/labs/*")) == [lab_outputs.places(root)[other]]
    [said] = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert said.startswith("Lab docs/labs/adding.py failed: ")
    assert "ZeroDivisionError" in said


def test_few_executions_are_kept(root: Path) -> None:
    """Old notebooks of a lab go, the oldest first; those of another lab stay."""
    lab, other = lab_outputs.places(root).values()
    for number, name in enumerate([*"abcdef"]):
        old = lab.with_name(f"{lab.stem.rpartition('-')[0]}-{name}.ipynb")
        old.parent.mkdir(parents=True, exist_ok=True)
        old.write_text("")
        os.utime(old, (number, number))
    lab_outputs.keep(other, "")
    lab_outputs.keep(lab, "")
    assert {
        path.stem.rpartition("-")[2] for path in root.glob("build/labs/*") if path != other
    } == {
        *"def",
        lab.stem.rpartition("-")[2],
    }
    assert other.exists()


def test_a_lab_whose_name_goes_on_is_another(root: Path) -> None:
    """Keeping `adding` over and over leaves the notebook of `adding-more` where it is."""
    lab = lab_outputs.places(root)[root / "docs/labs/adding.py"]
    longer = lab.with_name(lab.name.replace("adding", "adding-more"))
    lab_outputs.keep(longer, "")
    os.utime(longer, (1, 1))
    for name in "abcdef":
        lab_outputs.keep(lab.with_name(f"adding-{name}.ipynb"), "")
    assert longer.exists()
    assert len(list(lab.parent.glob("*"))) == 1 + lab_outputs.KEPT


def test_a_lab_shows_its_outputs_or_says_that_it_has_none(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build shows the notebook that is kept; of a lab that changed since, no output at all."""
    monkeypatch.setattr(convert, "nb2html", lambda path, **options: f"<h1>X</h1>{path}")
    shown, lab = lab_outputs.LabsShown(), root / "docs/labs/adding.py"
    place = lab_outputs.places(root)[lab]
    place.parent.mkdir(parents=True)
    place.write_text("{}")

    def page() -> str:
        return shown.mark_not_run(convert.nb2html(str(lab), execute=True), lab)

    shown.choose(root)
    assert page() == f"<h1>X</h1>{place}"
    (root / "reproducibility/keys.py").write_text("seed = 2\n")
    assert page() == f"<h1>X</h1>{place}"  # one build, one answer
    shown.choose(root)
    assert page() == f"<h1>X</h1>{lab_outputs.NOT_RUN}{lab}"
    assert "<code>mkdocs serve</code> runs no lab" in lab_outputs.NOT_RUN  # it shows the same page


def test_each_state_of_a_lab_is_tried_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A lab that failed is run again after a change only; one that is kept is not run."""
    ran: list[list[str]] = []
    kept = lab_outputs.places(root)[root / "docs/labs/nothing.py"]

    class Failing:
        def __init__(self, command: list[str], **options: Any) -> None:
            ran.append(command[3:])
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text("{}")

        def wait(self) -> int:
            return 1

    monkeypatch.setattr(subprocess, "Popen", Failing)
    labs = serve.Labs(root)
    labs.run()
    assert ran == [["docs/labs/adding.py", "docs/labs/nothing.py"]]
    assert "A lab failed" in caplog.text
    labs.run()
    assert len(ran) == 1
    (root / "docs/labs/adding.py").write_text("# %%\nprint(43)\n")
    labs.run()
    assert ran[1:] == [["docs/labs/adding.py"]]


EXECUTE = """
import sys
from pathlib import Path
from tools.reuse import lab_outputs

root, *labs = map(Path, sys.argv[1:])
sys.exit(bool(lab_outputs.execute(labs, root)))
"""


def test_a_broken_lab_hides_no_other(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two labs that run in the background, one with an error, the other one is shown."""
    lab, other = root / "docs/labs/adding.py", root / "docs/labs/nothing.py"
    lab.write_text("# %%\n1 / 0\n")
    popen, ended = subprocess.Popen, []

    def start(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        labs = [str(root / name) for name in command[3:]]
        ended.append(popen([sys.executable, "-c", EXECUTE, str(root), *labs], **options))
        return ended[-1]

    inputs.surroundings_digest()  # the first time, it starts a process
    monkeypatch.setattr(subprocess, "Popen", start)
    serve.Labs(root).run()
    assert lab_outputs.missing(root).keys() == {lab}
    assert lab_outputs.places(root)[other].is_file()
    assert [process.returncode for process in ended] == [1]


def test_a_lab_that_was_stopped_has_not_failed(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What `stop` ends is not said to have failed, and after it nothing starts."""
    labs, popen = serve.Labs(root), subprocess.Popen
    started: list[subprocess.Popen[bytes]] = []

    class Sleeping(popen):  # type: ignore[type-arg, misc, valid-type]
        def __init__(self, command: list[str], **options: Any) -> None:
            super().__init__([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, **options)
            started.append(self)

        def wait(self, timeout: float | None = None) -> int:
            if not labs.stopping:
                assert os.getpgid(self.pid) == self.pid  # the terminal's Ctrl-C passes it by
                labs.stop()
            return super().wait(timeout)

    inputs.surroundings_digest()  # the first time, it starts a process
    monkeypatch.setattr(subprocess, "Popen", Sleeping)
    labs.run()
    labs.run()
    assert [process.returncode for process in started] == [-signal.SIGKILL]
    assert "failed" not in caplog.text
    for process in started:
        assert process.stdin
        process.stdin.close()


def test_a_stop_before_the_start_holds(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `stop` between finding what to run and running it leaves nothing running."""
    labs, missing = serve.Labs(root), lab_outputs.missing

    def stopped(where: Path) -> dict[Path, Path]:
        labs.stop()
        return missing(where)

    inputs.surroundings_digest()  # the first time, it starts a process
    monkeypatch.setattr(lab_outputs, "missing", stopped)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("started"))
    labs.run()


def test_what_was_built_is_current_until_something_changes(root: Path) -> None:
    """A build is current for the next process, too, until a page or a tool changes."""
    site = serve.Site(root)
    assert not site.is_current()
    site.build()
    assert site.is_current()
    assert serve.Site(root).is_current()
    (root / "docs/index.md").write_text("# Home again\n")
    assert not site.is_current()
    site.build()
    assert site.is_current()
    (root / "tools/labs/settings.py").write_text("x = 1\n")
    assert not serve.Site(root).is_current()


def test_a_lab_that_has_run_since_makes_another_site(root: Path) -> None:
    """A site that says "Not run yet" is not current once that lab is kept, for no process."""
    site = serve.Site(root)
    site.build()
    lab_outputs.keep(lab_outputs.places(root)[root / "docs/labs/adding.py"], "{}")
    assert not site.is_current()
    assert not serve.Site(root).is_current()
    site.build()
    assert site.is_current()


def test_another_address_of_the_repository_is_another_site(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pages hold the address of the repository, so that what was built with another is not."""
    site = serve.Site(root)
    site.build()
    monkeypatch.setenv("REPO_URL", "https://git.example/x")
    assert not site.is_current()


def test_a_change_during_a_build_is_not_lost(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a build was made of is what there was when it began."""
    import mkdocs.commands.build as building

    build = building.build

    def slow(config: object) -> None:
        build(config)
        (root / "docs/index.md").write_text("# Home again\n")

    site = serve.Site(root)
    monkeypatch.setattr(building, "build", slow)
    site.build()
    assert not site.is_current()


def test_a_build_that_fails_is_not_current(root: Path) -> None:
    """A build that ended halfway is never served as the last one."""
    site = serve.Site(root)
    site.build()
    config = (root / "mkdocs.yml").read_text()
    (root / "mkdocs.yml").write_text("nav: [")
    with pytest.raises(Exception, match=r"nav|YAML|parsing"):
        site.build()
    (root / "mkdocs.yml").write_text(config)
    assert not site.is_current()


# ------------------------------------------------------------------------------------------------
# Pages that are not rendered again

EDITS: dict[str, Callable[[Path], object]] = {
    "a page": lambda docs: (docs / "other.md").write_text("# Other\n\n## A place\n\nWet.\n"),
    "its title": lambda docs: (docs / "other.md").write_text("# Another\n\n## A place\n"),
    "an abbreviation": lambda docs: (docs / "words.txt").write_text("*[ULP]: a bit\n"),
    "what a page includes": lambda docs: (docs / "included.txt").write_text("More.\n"),
    "a place that is linked": lambda docs: (docs / "other.md").write_text("# Other\n"),
    "a page that is linked": lambda docs: (docs / "other.md").unlink(),
    "a new page": lambda docs: (docs / "fourth.md").write_text("# Fourth\n"),
}


@pytest.mark.parametrize("name", EDITS)
def test_a_build_that_keeps_pages_is_a_build(
    root: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """After any edit the pages and the warnings are those of a build that kept nothing."""
    site = serve.Site(root)
    site.build()
    EDITS[name](root / "docs")
    kept = [built(site, caplog), built(site, caplog)]
    (root / "mkdocs.yml").write_text(CONFIG.replace("hooks:", "#"))
    assert kept == [built(site, caplog)] * 2


def built(site: serve.Site, caplog: pytest.LogCaptureFixture) -> object:
    """Build, and return the pages, without what tells the time, and the warnings."""
    caplog.clear()
    site.build()
    pages = {
        path: re.sub("<!--.*?-->", "", path.read_text(), flags=re.DOTALL)
        for path in site.folder.rglob("*.html")
    }
    return pages, [record.message for record in caplog.records if record.levelname == "WARNING"]


def test_only_what_changed_is_rendered_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an edit that page is rendered, and those that include files; after none, only these."""
    rendered: list[str] = []
    render = Page.render

    def spy(page: Page, *arguments: Any) -> None:
        rendered.append(page.file.src_uri)
        render(page, *arguments)

    monkeypatch.setattr(Page, "render", spy)
    site = serve.Site(root)
    for edited, expected in (
        ([], ["index.md", "other.md", "third.md"]),
        ([], ["third.md"]),
        (["other.md"], ["other.md", "third.md"]),
        (["words.txt"], ["index.md", "other.md", "third.md"]),
    ):
        for name in edited:
            (root / "docs" / name).write_text("*[ULP]: a bit\n")
        rendered.clear()
        site.build()
        assert sorted(rendered) == expected


# ------------------------------------------------------------------------------------------------
# In a browser


class Server:
    """`make serve` of a small site, in a process of its own."""

    def __init__(self, root: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        code = f"from tools.serve import *; main(Path({str(root)!r}))"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, f"127.0.0.1:{self.port}"],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )

    def get(self, path: str, until: Callable[[str], bool] = bool) -> str:
        """Ask for a page until it is there, and such as is waited for."""
        while self.process.poll() is None:
            with (
                contextlib.suppress(urllib.error.URLError, ConnectionError),
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}") as answer,
            ):
                if until(page := answer.read().decode()):
                    return page
            time.sleep(0.1)
        raise AssertionError(self.process.communicate()[1])

    def end(self) -> str:
        """End as Ctrl-C does; return the log.

        Once a signal that came as the browsers were told to reload was not heard: it is sent again,
        as a person would press it again. Why is not known.
        """
        for seconds in (20, 20, 20):
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self.process.communicate(timeout=seconds)[1]
        raise AssertionError("the server did not end")


@pytest.fixture
def serving(root: Path) -> Iterator[Callable[[], Server]]:
    """Start servers of the small site, and leave none running."""
    servers: list[Server] = []

    def start() -> Server:
        servers.append(Server(root))
        return servers[-1]

    (root / "docs/labs/nothing.py").unlink()
    (root / "docs/labs/adding.py").unlink()
    yield start
    for server in servers:
        server.process.kill()
        server.process.communicate()


def test_an_edit_is_served_and_reloads(root: Path, serving: Callable[[], Server]) -> None:
    """A page is as built but for the script that reloads it; after an edit it is the new one."""
    server = serving()
    page = server.get("/other/")
    epoch = int(re.findall(r"livereload\((\d+), \d+\);", page)[0])
    file = (root / "build/serve/site/other/index.html").read_text()
    assert re.sub(r"<script>\s*var livereload.*?</script>", "", page, flags=re.DOTALL) == file
    (root / "docs/other.md").write_text("# Other\n\nWet.\n")
    assert "Dry." not in server.get("/other/", lambda page: "Wet." in page)
    assert int(server.get(f"/livereload/{epoch}/0", lambda now: int(now) > epoch)) > epoch
    log = server.end()
    assert log.count("Left out: social cards, the page to print, the zip.") == 1


def test_a_site_that_is_current_is_not_built(root: Path, serving: Callable[[], Server]) -> None:
    """The next start answers from the last build; after an edit meanwhile it does not."""
    first = serving()
    first.get("/")
    assert "Building documentation" in first.end()
    second = serving()
    second.get("/")
    assert "Building documentation" not in second.end()
    (root / "docs/index.md").write_text("# Home again\n")
    third = serving()
    assert "Home again" in third.get("/")
    assert "Building documentation" in third.end()


def test_a_touched_file_builds_nothing(root: Path, serving: Callable[[], Server]) -> None:
    """A file with a new time and the same bytes is noticed, and the pages are left as they are."""
    server = serving()
    page = server.get("/")
    epoch = int(re.findall(r"livereload\((\d+), \d+\);", page)[0])
    (root / "docs/other.md").touch()
    server.get(f"/livereload/{epoch}/0", lambda now: int(now) > epoch)
    log = server.end()
    assert "Detected file changes" in log
    assert log.count("Building documentation") == 1


def test_changed_tools_are_used(root: Path, serving: Callable[[], Server]) -> None:
    """What the process has loaded cannot be loaded again, so that it starts from scratch."""
    server = serving()
    server.get("/")
    before = (root / "build/serve/made-of").read_text()
    (root / "tools/labs/settings.py").write_text("x = 1\n")
    server.get("/", lambda _: (root / "build/serve/made-of").read_text() != before)
    log = server.end()
    assert "The tools changed: starting again" in log
    assert log.count("Left out") == 2


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:TAKEN", "a free address"),
        ("8001", "HOST:PORT"),
        (":8001", "HOST:PORT"),
        ("127.0.0.1", "HOST:PORT"),
        ("127.0.0.1:65536", "HOST:PORT"),
    ],
)
def test_an_address_that_is_none_is_said(root: Path, address: str, expected: str) -> None:
    """Where nothing can be served, one sentence says so before anything is built."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = address.replace("TAKEN", str(taken.getsockname()[1]))
        ended = subprocess.run(
            [sys.executable, "-m", "tools.serve", address],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,  # or it serves
        )
    assert ended.returncode == 1
    begin = f"Cannot serve at {address}: expected {expected}, got "
    assert re.fullmatch(re.escape(begin) + r".*\. Name .*\n", ended.stderr)
    assert "(none)" not in ended.stderr


# ------------------------------------------------------------------------------------------------
# This site

SERVED = """
import sys
from pathlib import Path
from tools import serve
from tools.reuse import lab_outputs

assert not lab_outputs.execute([serve.ROOT / "docs/reference/built_with.py"])
site = serve.Site()
site.folder, site.address = Path(sys.argv[1]), sys.argv[2]
site.stamp = site.folder.with_suffix(".made-of")
site.build()
site.build()  # what a reader gets who sees an edit: with the pages that were kept
"""
NOT_SERVED = ("print/", "reproducibility-site.zip", "assets/cards/")


def test_what_is_served_is_what_is_published(site: Path, tmp_path: Path) -> None:
    """Every page is that of a build, byte for byte, but for labs that say they have not run."""
    served = tmp_path / "served"
    built = int((site / "sitemap.xml").stat().st_mtime)  # the site map has the day, and days end
    subprocess.run(
        [sys.executable, "-c", SERVED, str(served), ADDRESSES["SITE_URL"]],
        cwd=ROOT,
        env=os.environ | ADDRESSES | {"SOURCE_DATE_EPOCH": str(built)},
        check=True,
    )
    here, there = (
        {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}
        for folder in (served, site)
    )
    assert {name for name in there.keys() - here.keys() if not name.startswith(NOT_SERVED)} == set()
    differ = {name for name in here if here[name] != there.get(name)}
    not_run = {name for name in here if b"Not run yet" in here[name]}
    assert differ - {"search/search_index.json"} == not_run - {"search/search_index.json"}
    assert {Path(name).parts[0] for name in not_run} <= {"labs", "search"}  # built_with has run
