"""Reads the command line into one of the commands; a mistake in it is one sentence.

The rule: the fields of a dataclass are the flags, and its docstrings are the help. Only the words
that tyro lacks are written by hand.
Chapter: docs/reference/cli.md
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import sys
import textwrap
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Union

from reproducibility.cli.terminal import say_on_stderr


@dataclasses.dataclass(frozen=True)
class Subcommand:
    """What the command line has to know of a command beside its fields."""

    cls: type[Any]
    """Its dataclass; an instance is called, and returns the exit code."""
    positional: bool = False
    """Whether fields without a default are given without a flag."""
    runs_from: tuple[str, ...] = ()
    """For a command that runs another: the words with one of which that begins, such as `--`. The
    instance is called with it, as a list of words; `--` itself is left out."""
    prints: str = ""
    """What the example in its help prints."""


def named(name: str, what: str) -> Any:
    """Give a field another name on the command line, and its value a word in the help."""
    import tyro

    return tyro.conf.arg(name=name, metavar=what)


def placed() -> Any:
    """Let a field that has a default be given by its place, without a flag."""
    import tyro

    return tyro.conf.Positional


def parse_arguments(
    arguments: list[str], commands: Mapping[str, Subcommand], *, another: bool = True
) -> Any:
    """Read the command line into one of the commands; refuse it in one sentence.

    `another` says whether a command was given for those that run another.
    """
    import tyro

    kinds = []
    for name, command in commands.items():
        positional = (tyro.conf.PositionalRequiredArgs,) if command.positional else ()
        subcommand = tyro.conf.subcommand(name, prefix_name=False)
        kinds.append(Annotated[command.cls, subcommand, *positional])
    complaint, known = io.StringIO(), commands.get(arguments[0]) if arguments else None
    cli: Any = tyro.cli  # typed for one class, and given a union made at run time
    try:
        with contextlib.redirect_stderr(complaint), _amended_help(known):
            return cli(
                Union[tuple(kinds)],  # noqa: UP007
                prog="reproducibility",
                description="Make a JAX training run repeat bit for bit, and prove that it does. "
                "--version prints the versions of this package, of JAX and of Python.",
                args=arguments,
                config=(tyro.conf.FlagCreatePairsOff, tyro.conf.PositionalMetavarFromFieldName),
                registry=_registry(),
            )
    except SystemExit as end:
        if end.code:
            command_line = ["reproducibility", *(a for a in arguments[:1] if a in commands)]
            problem = _unknown_command(arguments, commands)
            problem = problem or _first_paragraph(complaint.getvalue())
            if known and known.runs_from == ("--",) and not another:
                problem += ". What to run comes after --, as in: -- python train.py"
            help_text = f"See {' '.join(command_line)} --help."
            say_on_stderr(f"Cannot read the command line: {problem}. {help_text}")
        raise


def _unknown_command(arguments: list[str], commands: Mapping[str, Subcommand]) -> str:
    """Say that the first word is no command, and which one is meant; nothing if it is one."""
    if not arguments or arguments[0] in commands or arguments[0].startswith("-"):
        return ""
    meant = difflib.get_close_matches(arguments[0], commands, 1)
    ask = f", and perhaps {meant[0]} is meant" if meant else ""
    return f"There is no command {arguments[0]}{ask}"


@contextlib.contextmanager
def _amended_help(known: Subcommand | None) -> Iterator[None]:
    """Add to the help what tyro does not know: that a command follows, what the example prints."""
    if known is None or known.runs_from != ("--",):
        yield
        return
    shown = _Help()
    try:
        with contextlib.redirect_stdout(shown):
            yield
    finally:
        usage, end, text = shown.getvalue().partition("\n")
        before, example, after = text.partition("\nExample: ")
        example += after.partition("\n")[0] + end
        prints = textwrap.indent(f"\n{known.prints}", "    ") if known.prints else ""
        text = before + example + prints + after.partition("\n")[2] if after else text
        print(usage + " -- COMMAND" * bool(usage) + end + text, end="")


class _Help(io.StringIO):
    """Takes the help, which has colours if it is for a terminal."""

    def isatty(self) -> bool:
        return sys.__stdout__ is not None and sys.__stdout__.isatty()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of the terminal: with it, tyro draws other boxes."""
        return getattr(sys.__stdout__, "encoding", None) or "utf-8"


def split_arguments(
    arguments: list[str], commands: Mapping[str, Subcommand]
) -> tuple[list[str], list[list[str]]]:
    """Return the arguments of a command, and what it is called with: for a command that runs
    another the words of that, for each other nothing."""
    known = commands.get(arguments[0]) if arguments else None
    if not known or not known.runs_from:
        return arguments, []
    places = (i for i, word in enumerate(arguments) if word in known.runs_from)
    cut = next(places, len(arguments))
    words = arguments[cut:]
    return arguments[:cut], [words[1:] if words[:1] == ["--"] else words]


def _first_paragraph(box: str) -> str:
    """Take the words out of the box that tyro draws: its first paragraph says what is wrong.

    tyro 1.0 hands out what is wrong in no other way. Its public API can only keep silent
    (`console_outputs=False`); the hook `on_parse_error` is in `tyro._errors`, which says that it
    may change in any release.
    """
    lines = [line.strip("╭╮╰╯│─ ") for line in box.splitlines()[1:]]
    paragraph = lines[: lines.index("")] if "" in lines else lines
    return " ".join(line for line in paragraph if line).rstrip(".")


def _registry() -> Any:
    """Teach tyro to say what number it expects, rather than what Python's parser says."""
    from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

    registry = ConstructorRegistry()
    words = {int: "a whole number", float: "a number"}

    @registry.primitive_rule
    def number(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        optional = type(None) in typing.get_args(info.type)  # as in `int | None`
        kind: Any = typing.get_args(info.type)[0] if optional else info.type
        if kind not in words:
            return None

        def read(texts: list[str]) -> Any:
            try:
                return kind(texts[0])
            except ValueError:
                raise ValueError(f"expected {words[kind]}, got {texts[0]!r}") from None

        def fits(value: Any) -> bool:
            return type(value) is kind or (optional and value is None)

        return PrimitiveConstructorSpec(
            1, kind.__name__.upper(), read, fits, lambda value: [str(value)]
        )

    @registry.primitive_rule
    def names(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        def read(texts: list[str]) -> tuple[str, ...]:
            if not texts:
                raise ValueError("expected a name or more, got none")
            return tuple(texts)

        spec = PrimitiveConstructorSpec("*", "NAME [NAME ...]", read, lambda value: True, list)
        return spec if info.type == tuple[str, ...] else None

    return registry
