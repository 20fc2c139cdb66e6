"""The table of hidden inputs: what varies from run to run, and from place to place.

The rule: one row for each, and all rows are alike: whoever adds one touches only a table, unless it
is changed inside of the script's process.
Chapter: docs/guide/hidden_inputs.md
"""

from __future__ import annotations

import contextlib
import locale
import platform
import shutil
import subprocess
from collections.abc import Mapping

from reproducibility.script.cause import CURES
from reproducibility.script.hidden import (
    Change,
    Hidden,
    Surroundings,
    command_in_line,
    script_in,
)
from reproducibility.script.hidden_numbers import hidden_numbers

# What a line asks of a locale that tells the same in C and POSIX.
ASKS_LOCALE = r"\blocale\.(?!getpreferredencoding|getencoding)|\bsetlocale\(|LC_ALL"


def hidden_inputs(around: Surroundings) -> list[Hidden]:
    """Return all hidden inputs that are known; one that does not apply has no change.

    Args:
        around: what the script is run in.
    """
    return [
        *_of_python(),
        *_of_place(around),
        *_of_process(),
        *_of_timing(),
        *_of_environment(around),
        *hidden_numbers(around),
    ]


def _salt(way: int, words: str = "") -> Change:
    return Change(f"PYTHONHASHSEED={way}", {"hash": way}, words=words)


def _of_python() -> list[Hidden]:
    return [
        Hidden(
            "hash",
            "the hash salt",
            CURES["hash"],
            (Change("PYTHONHASHSEED=1", {"hash": 1}),),
            quick=True,
            more=tuple(_salt(way, "" if way < 7 else r"\bhash\(") for way in range(2, 13)),
        ),
        Hidden(
            "listing",
            "the order of folder listings",
            CURES["listing"],
            (Change("names in reversed order", {"listing": 1}),),
            (("listing", ""),),
            r"listdir|scandir|glob|iterdir|os\.walk",
            quick=True,
            more=(
                Change("the first name last", {"listing": 2}),
                Change("neighbours swapped", {"listing": 3}),
                Change("names shuffled", {"listing": 4}),
            ),
        ),
        Hidden(
            "entropy",
            "unseeded generators and the system's entropy",
            CURES["entropy"],
            (Change("another stream", {"entropy": 1}),),
            (("entropy", ""), ("draws", "")),
            quick=True,
            more=tuple(Change("another stream", {"entropy": way}) for way in range(2, 5)),
        ),
        Hidden(
            "clock",
            "the date and time",
            CURES["clock"],
            (Change("a Saturday afternoon in 2013", {"clock": 1}),),
            (("clock", ""),),
            r"time\(|now\(|today\(|perf_counter|monotonic",
            quick=True,
            more=(
                Change("a Thursday evening in 2032", {"clock": 2}),
                Change("a Tuesday in 2020", {"clock": 3}),
            ),
            told_anyway=(("process", r"\('date'\)"),),
            words_anyway=(
                r"(datetime64|Timestamp|to_datetime)\(\s*['\"](now|today)"
                rf"|Timestamp\.(now|today|utcnow)|{command_in_line('date')}"
            ),
        ),
        Hidden(
            "pid",
            "the number of the process",
            CURES["pid"],
            (Change("another number", {"pid": 1}),),
            (("process", r"os\.getp"),),
            r"getpid",
        ),
        Hidden(
            "addresses",
            "addresses in memory",
            CURES["addresses"],
            (
                Change("objects moved", {"addresses": 9}),
                Change("where the system likes", {"addresses": -1}),
            )
            * (platform.system() == "Linux"),
            words=r"\bid\(|\bset\(|key=id|hash\(|repr\(|get_ident",
            more=tuple(Change("objects moved", {"addresses": way}) for way in (1, 4, 6))
            * (platform.system() == "Linux"),
        ),
    ]


def _of_place(around: Surroundings) -> list[Hidden]:
    script = script_in(around.command)
    other_locale, not_told = _other_locale(around.environment)
    return [
        Hidden(
            "folder",
            "the working directory",
            "give folders as arguments",
            (
                Change("a copy of it elsewhere", place="folder"),
                Change("an empty one", place="empty", may_fail=True),
            ),
            words=r"getcwd|\.cwd\(|abspath|resolve\(|\bPWD\b|absolute\(|(Path|open)\(['\"][^/]",
        ),
        Hidden(
            "script",
            "the path of the script",
            "compute nothing from __file__ or sys.argv[0]",
            (Change("a copy of it elsewhere", place="script"),) * (script is not None),
            words=r"__file__|argv",
        ),
        Hidden(
            "user",
            "the name of the user",
            "compute nothing from it",
            (Change("somebody", {"user": 1}, _names_of_user("somebody")),),
            (("machine", "getlogin"), ("environment", "^(USER|LOGNAME|LNAME|USERNAME)$")),
            r"getuser|getlogin|USER|LOGNAME",
            told_anyway=(("process", r"\('(whoami|id|logname)'\)"), ("reads", "^/etc/passwd$")),
            words_anyway=rf"getpwnam|getpwall|{command_in_line('whoami|id|logname')}",
        ),
        Hidden(
            "home",
            "the home folder",
            "give the folder as an argument",
            (Change("another path to it", place="home"),) * ("HOME" in around.environment),
            (("environment", "^HOME$"),),
            r"expanduser|home\(|HOME",
            more=(Change("an empty one", place="bare", may_fail=True),)
            * ("HOME" in around.environment),
            words_anyway=r"realpath.*(expanduser|HOME)|(expanduser|home\(|HOME).*\bresolve\(",
        ),
        Hidden(
            "host",
            "the name of the machine",
            "compute nothing from it",
            (Change("localhost", {"host": 1}, {"HOSTNAME": "localhost"}),),
            (("machine", "hostname|node|uname"), ("environment", "^HOSTNAME$")),
            r"hostname|node\(|uname|HOSTNAME",
            told_anyway=(
                ("process", r"\('hostname(ctl)?'\)"),
                ("reads", "^/etc/(hostname|machine-id)$"),
                ("machine", "^/proc/sys/kernel/(hostname|random/boot_id)$"),
            ),
            words_anyway=command_in_line("hostname|hostnamectl|uname"),
        ),
        Hidden(
            "zone",
            "the time zone",
            "datetime.now(timezone.utc)",
            (Change("9:30 west of Greenwich", variables={"TZ": "XST9:30"}),),
            (("clock", ""), ("environment", "^TZ$")),
            r"localtime|timestamp|now\(|today\(|tzset|\bTZ\b|astimezone|timezone",
        ),
        Hidden(
            "locale",
            "the locale",
            "open(..., encoding='utf-8'), and sort by code points",
            (
                other_locale,
                Change("text is ASCII", variables=_ascii()),
            ),
            (("environment", "^(LANG|LANGUAGE|LC_.*)$"),),
            r"locale|strxfrm|strcoll|LANG|LC_|encoding",
            words_anyway=not_told,
        ),
    ]


def _names_of_user(name: str) -> dict[str, str | None]:
    return dict.fromkeys(("USER", "LOGNAME", "LNAME", "USERNAME"), name)


def _ascii() -> dict[str, str | None]:
    """Return what makes Python read and write files as ASCII, and print as before."""
    names = ("LC_ALL", "LANG", "LANGUAGE")
    python = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "utf-8"}
    return {**dict.fromkeys(names, "C"), **python}


def _other_locale(environment: Mapping[str, str]) -> tuple[Change, str]:
    """Return another locale that is installed, and which lines it does not tell anything to."""
    now = next((environment[n] for n in ("LC_ALL", "LC_CTYPE", "LANG") if environment.get(n)), "C")
    found = []
    if shutil.which("locale"):
        told = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=False)
        found = [n for n in told.stdout.split() if n.partition(".")[0] not in ("C", "POSIX")]
    is_c = locale.normalize(now).partition(".")[0] in ("C", "POSIX")
    others = [*found, "C"] if is_c else ["C"]
    name = next(each for each in [*others, "POSIX"] if each != now)
    change = Change(f"LC_ALL={name}", variables={"LC_ALL": name, "LANG": name, "LANGUAGE": name})
    return change, ASKS_LOCALE if is_c and not found else ""


def _of_process() -> list[Hidden]:
    return [
        Hidden(
            "assertions",
            "assertions and PYTHONOPTIMIZE",
            "compute nothing in an assert",
            (),
            words=r"assert|__debug__",
            more=(Change("python -O", variables=_without_assertions()),),
        ),
        Hidden(
            "umask",
            "the umask",
            "compute nothing from the mode of a file",
            (),
            words=r"st_mode|umask|\.mode\b",
            more=(Change("files for the owner only", {"umask": 1}),),
        ),
        Hidden(
            "terminal",
            "the size of the terminal",
            "np.set_printoptions(linewidth=75)",
            (),
            (("environment", "^(COLUMNS|LINES)$"),),
            r"terminal_size|COLUMNS",
            more=(Change("COLUMNS=37", variables={"COLUMNS": "37", "LINES": "17"}),),
        ),
        Hidden(
            "hardware",
            "the address of the network card",
            "give the seed as an argument",
            (),
            words=r"getnode|uuid1",
            more=(Change("02:00:00:00:00:01", {"hardware": 1}),),
        ),
        Hidden(
            "temporary",
            "what an earlier run left for temporary files",
            "tempfile.TemporaryDirectory() instead of a name of your own",
            (),
            words=r"gettempdir|TMPDIR|tempfile",
            more=(Change("there", place="left"),),
        ),
    ]


def _without_assertions() -> dict[str, str | None]:
    """Return what makes Python leave assertions out; it would write its own files of modules."""
    return {"PYTHONOPTIMIZE": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def _of_timing() -> list[Hidden]:
    return [
        Hidden(
            "races",
            "the timing of threads",
            "join threads, and wait for what is asynchronous before it is used",
            (
                Change("threads begin late", {"timing": 1}),
                Change("threads begin at once and switch often", {"timing": 2}),
            ),
            words=r"Thread|Queue|Executor|Pool|start\(|daemon",
            timing=True,
        ),
        Hidden(
            "workers",
            "the order in which workers finish",
            "map() instead of as_completed() and imap_unordered()",
            (Change("the first tasks take longer", {"workers": 1}),),
            words=r"as_completed|imap_unordered|add_done_callback|apply_async|FIRST_COMPLETED|Pool",
            timing=True,
        ),
    ]


def _of_environment(around: Surroundings) -> list[Hidden]:
    """Return a row for each variable that the script reads, and that is no row already."""
    found = []
    for name in around.read:
        asks = (("environment", f"^{name}(=|$)"),)
        called, pin = f"the variable {name}", "give it as an argument"
        found.append(Hidden(name, called, pin, _other_values(name, around), asks, name))
    return found


def _other_values(name: str, around: Surroundings) -> tuple[Change, ...]:
    """Return two changes of a variable: one of them may be what the script takes without it."""
    now = around.environment.get(name)
    texts = ("1", "2") if now is None else (None, _another_value(now))
    return tuple(
        Change("taken away" if text is None else f"{name}={text}", variables={name: text})
        for text in texts
    )


def _another_value(text: str) -> str:
    """Return another text of the same kind: a number, a word that says yes or no, or any."""
    opposite = {"true": "false", "false": "true", "yes": "no", "no": "yes", "on": "off"}
    opposite |= {"off": "on"}
    if text.lower() in opposite:
        other = opposite[text.lower()]
        return other.title() if text.istitle() else other.upper() if text.isupper() else other
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return str(kind(text) + 1)
    return f"{text}1"
