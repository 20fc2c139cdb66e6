"""Run the code blocks of the pages: a pytest plugin around pytest-codeblocks 0.18.0.

The rule: a block runs as a reader would run it, alone in an empty directory, and what the page
shows as its output is compared with what it printed. `pages` says what a page may hold.

pytest-codeblocks brings the option, the collection and the tags. Its own reading and running of
blocks is replaced, because too many blocks slip through it unseen. A chain (a block and those that
continue it) is one test: one module, one directory, each block's output compared on its own.

What ran is written to build/executed.json, for tests/site/test_published.py to hold against the
built site. With `--update-outputs`, outputs that differ are rewritten instead of refused.
"""

from __future__ import annotations

import difflib
import doctest
import linecache
import os
import signal
import subprocess
import sys
import traceback
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_codeblocks.plugin  # type: ignore[import-untyped]

from tools.guard.executed import update_outputs, write_record
from tools.guard.isolation import captured_stdout, isolated
from tools.guard.pages import Block, Page, PageError, read_page
from tools.story.stages import story

# Blocks run in this process, so code that never returns to Python can be stopped only by ending the
# process, which pytest-timeout does after this long.
SECONDS_PER_CHAIN = 600


class OutputDiffers(Exception):
    """A block printed something else than its page shows."""


class BlockFailed(BaseException):
    """A block did not run to its end, for a reason that is no exception of its own.

    Not an Exception, so that no `except Exception` of a block swallows the time limit.
    """


class MarkdownFile(pytest_codeblocks.plugin.MarkdownFile):  # type: ignore[misc]
    """A page: one test for every chain of blocks."""

    def collect(self) -> Iterator[pytest.Item]:
        """Yield the chains; a page that cannot be checked is an error of collection."""
        try:
            page = read_page(self.path, self.config.rootpath)
        except PageError as error:
            raise self.CollectError(str(error)) from None
        for chain in page.chains:
            yield Chain.from_parent(self, name=f"line {chain[0].line}", page=page, chain=chain)


# pytest-codeblocks looks this name up when it collects a file.
pytest_codeblocks.plugin.MarkdownFile = MarkdownFile


class Chain(pytest_codeblocks.plugin.TestBlock):  # type: ignore[misc]
    """A block and those that continue it, run one after another in one module and directory."""

    def __init__(self, *, page: Page, chain: list[Block], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.page, self.chain = page, chain
        self.add_marker(pytest.mark.timeout(SECONDS_PER_CHAIN, method="thread"))

    def runtest(self) -> None:
        """Run every block and compare what it prints; stop at the first that fails."""
        with isolated(), main_module(self.page.name, self.chain) as module:
            for block in self.chain:
                if block.downloaded:
                    Path(Path(block.downloaded).name).write_text(story(block.downloaded), "utf-8")
                self._run_block(block, module)

    def _run_block(self, block: Block, module: types.ModuleType) -> None:
        ran: dict[str, Any] = {
            "page": self.page.name,
            "sha256": self.page.sha256,
            "line": block.line,
            "language": block.language,
            "code": block.code,
            "output": block.output and block.output.text,
            "printed": None,
            "outcome": "failed",
        }
        # user_properties travel with the report, so that they reach the controller of pytest-xdist.
        self.user_properties.append(("codeblock", ran))
        where = f"{self.page.name}:{block.line}"
        with time_limit(self.config.getoption("seconds_per_block"), where):
            if block.language == "python":
                ran["printed"] = run_python(block, self.page.name, module)
            else:
                ran["printed"] = run_shell(block, where)
        if not self.config.getoption("update_outputs"):
            compare_output(self.page.name, block, ran["printed"])
        ran["outcome"] = "passed"

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException]) -> str:
        """Show the page's lines of the traceback, and nothing of what runs them."""
        error = excinfo.value
        if isinstance(error, OutputDiffers | BlockFailed):
            return str(error)
        frames = error.__traceback__
        while frames and frames.tb_frame.f_code.co_filename != self.page.name:
            frames = frames.tb_next
        last = [ran["line"] for kind, ran in self.user_properties if kind == "codeblock"][-1]
        text = "".join(traceback.format_exception(type(error), error, frames))
        return f"{self.page.name}:{last}: the block failed\n\n{text}"

    def reportinfo(self) -> tuple[Path, int, str]:
        """Name the page and the line, which pytest counts from 0."""
        line = self.chain[0].line
        return self.path, line - 1, f"{self.page.name}:{line}"


@contextmanager
def main_module(name: str, chain: list[Block]) -> Iterator[types.ModuleType]:
    """Make a module named `__main__` whose source is the page, with all but the code left blank.

    So `if __name__ == "__main__"`, pickle, type hints and inspect.getsource work, and every line
    number is that of the page.
    """
    lines: list[str] = []
    for block in chain:
        lines += ["\n"] * (block.line - len(lines))
        lines += block.code.splitlines(keepends=True) if block.language == "python" else []
    module = types.ModuleType("__main__")
    module.__file__ = name
    before = sys.modules["__main__"]
    sys.modules["__main__"] = module
    # Without a time of modification, linecache never looks for a file.
    linecache.cache[name] = (sum(map(len, lines)), None, lines, name)
    try:
        yield module
    finally:
        sys.modules["__main__"] = before
        linecache.cache.pop(name, None)


def run_python(block: Block, name: str, module: types.ModuleType) -> str:
    """Execute a Python block in `module` and return what it printed."""
    code = compile("\n" * block.line + block.code, name, "exec", dont_inherit=True)
    with captured_stdout() as capture:
        try:
            exec(code, module.__dict__)
        except (SystemExit, pytest.skip.Exception, pytest.xfail.Exception) as error:
            raise BlockFailed(
                f"{name}:{block.line}: the block left early, with {type(error).__name__}({error}); "
                "a block runs to its end"
            ) from error
        if jax := sys.modules.get("jax"):
            jax.effects_barrier()  # jax.debug.print may still be on its way
    return capture.text


def run_shell(block: Block, where: str) -> str:
    """Run a sh or bash block, ending at the first command that fails; return its stdout."""
    shell = ["bash", "-eu", "-o", "pipefail"] if block.language == "bash" else ["sh", "-eu"]
    process = subprocess.Popen(
        [*shell, "-c", block.code],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate()
    except BlockFailed:  # the time limit
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        # A pipe left open is a ResourceWarning, which would be reported instead of the reason.
        for pipe in (process.stdout, process.stderr):
            if pipe:
                pipe.close()
        raise
    if process.returncode:
        raise BlockFailed(
            f"{where}: the {block.language} block ended with exit code {process.returncode}\n"
            f"--- stdout\n{out}--- stderr\n{err}"
        )
    sys.stderr.write(err)  # pytest shows it if something later fails
    return out


@contextmanager
def time_limit(seconds: int, where: str) -> Iterator[None]:
    """Stop a block that runs too long."""

    def stop(signum: int, frame: types.FrameType | None) -> None:
        line = next(
            (at.f_lineno for at in _callers(frame) if where.startswith(at.f_code.co_filename)), None
        )
        at = f", at line {line}" if line else ""
        raise BlockFailed(f"{where}: the block ran longer than {seconds} seconds{at}")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _callers(frame: types.FrameType | None) -> Iterator[types.FrameType]:
    while frame:
        yield frame
        frame = frame.f_back


def compare_output(name: str, block: Block, printed: str) -> None:
    """Raise OutputDiffers, with a diff, if the page shows something else than was printed."""
    if printed and not printed.endswith("\n"):
        printed += "\n"  # a fence cannot show a last line without its end
    if block.output is None or block.output.text == printed:
        return
    diff = difflib.unified_diff(
        block.output.text.splitlines(),
        printed.splitlines(),
        f"{name}:{block.output.line} shows",
        f"{name}:{block.line} printed",
        lineterm="",
    )
    raise OutputDiffers(
        "\n".join(diff) + "\n\nIf what it printed is right, run: make update-outputs"
    )


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--update-outputs` and `--seconds-per-block`."""
    group = parser.getgroup("codeblocks")
    group.addoption(
        "--update-outputs",
        action="store_true",
        help="rewrite the outputs that pages show to what their blocks print",
    )
    group.addoption(
        "--seconds-per-block", type=int, default=180, help="how long a block may run (default 180)"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Record what runs, in the process that sees every report."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder(config), "codeblocks-recorder")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Isolate docstring examples as blocks are, and put them on record."""
    if not isinstance(item, pytest.DoctestItem):
        return (yield)
    with isolated():
        result = yield
    examples = [
        [example.source, example.want]
        for example in item.dtest.examples
        if not example.options.get(doctest.SKIP)
    ]
    item.user_properties.append(("doctest", {"name": item.dtest.name, "examples": examples}))
    return result


class Recorder:
    """Collect what ran from the reports, and keep build/executed.json up to date."""

    def __init__(self, config: pytest.Config) -> None:
        self.root = config.rootpath
        self.update = config.getoption("update_outputs")
        self.ran: list[dict[str, Any]] = []
        self.rewritten: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write the record after each test, since tests of the site may follow in this session."""
        if report.when != "call":
            return
        properties: list[tuple[str, Any]] = report.user_properties
        blocks = [value for kind, value in properties if kind == "codeblock"]
        doctests = [value for kind, value in properties if kind == "doctest"]
        self.ran += blocks
        if blocks or doctests:
            write_record(self.root, blocks, doctests)

    def pytest_sessionfinish(self) -> None:
        """Rewrite outputs at the end, when no test can still need the old lines."""
        if self.update:
            self.rewritten = update_outputs(self.root, self.ran)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name the pages that were rewritten."""
        for name in self.rewritten:
            terminalreporter.write_line(f"updated the outputs of {name}")
