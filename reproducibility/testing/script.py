"""A script as it is, run by your test suite: does it repeat, and does it resume?

The rule: the command is the user's, in fresh processes; what cannot be told is no pass.
Chapter: docs/guide/testing_your_code.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reproducibility.script.interrupt import interrupt
from reproducibility.script.lost import report_of_resumption
from reproducibility.script.report import report_of
from reproducibility.script.twice import twice


def assert_script_repeats(
    command: Sequence[str],
    *,
    strict_output: bool = False,
    variables: Mapping[str, str] | None = None,
) -> None:
    """Fail unless a script, run twice and unchanged, makes the same calls of JAX.

    **Same bits:** that is what is tested: in two fresh processes on this machine.

    Args:
        command: what to run, as it would be typed, each word apart; `{dir}` (a fresh directory) and
            `{run}` (1 or 2) are replaced in it.
        strict_output: whether what the runs print and write has to be the same too.
        variables: environment variables that are added; `{run}` and `{dir}` are replaced in them.

    Raises:
        AssertionError: with the report of `twice`: where the runs diverge and why, or why it cannot
            be told whether they do.
        ConfigError: the command cannot be run.

    Examples:
        >>> from reproducibility import ConfigError
        >>> try:
        ...     assert_script_repeats(["no-such-command"])
        ... except ConfigError as error:
        ...     print(error)
        Cannot run 'no-such-command': expected a command after --, got none of that name. Put it \
as you would type it: -- python train.py.
    """
    found = twice(command, strict_output=strict_output, variables=variables)
    if found.exit_code:
        raise AssertionError("\n".join([f"{found.verdict}: {found.reason}", report_of(found)]))


def assert_script_resumable(
    command: Sequence[str],
    *,
    at: int = 0,
    times: int = 1,
    seed: int | None = None,
    stop: str = "",
    resume: str = "",
    strict_output: bool = False,
    variables: Mapping[str, str] | None = None,
) -> None:
    """Fail unless a script that is killed in the middle of a step and resumed goes on as if not.

    It is run whole, then interrupted and started again, as `reproducibility interrupt` does it. A
    script that resumes nothing fails as well: nothing was proved.

    **Same bits:** that is what is tested: in fresh processes on this machine.

    Args:
        command: what to run, as it would be typed, each word apart; `{dir}` (a fresh directory for
            the whole run, another one for the parts) and `{run}` are replaced in it.
        at: the step in which it is killed, counted from 1 by the calls of its step function.
        times: how often it is interrupted.
        seed: the moments are drawn from it, instead of `at`.
        stop: arguments with which the script stops by itself, instead of `at`.
        resume: arguments that each further start has more.
        strict_output: whether what the runs print and write has to be the same too.
        variables: environment variables that are added; `{run}` and `{dir}` are replaced in them.

    Raises:
        AssertionError: with the report of `interrupt`: what the resumed run lost, or why it cannot
            be told.
        ConfigError: the command cannot be run so, or has no such step.

    Examples:
        >>> import sys
        >>> from reproducibility import ConfigError
        >>> try:
        ...     assert_script_resumable([sys.executable, "train.py"], at=22, resume="--resume")
        ... except ConfigError as error:
        ...     print(error)
        Cannot run the script: expected {dir}, {run} or --env in the command, got none. Say where \
it writes: -- python train.py --workdir {dir}. If that is the folder in which it is started: -- \
sh -c 'cd {dir} && python /path/to/train.py'.
    """
    found = interrupt(
        command,
        at=at,
        times=times,
        seed=seed,
        stop=stop,
        resume=resume,
        strict_output=strict_output,
        variables=variables,
    )
    if found.exit_code:
        report = report_of_resumption(found)
        raise AssertionError("\n".join([f"{found.verdict}: {found.reason}", report]))
