"""Write the page of the exercises: what goes wrong in each, and the lines that repair it.

    python -m tools.practice

It is made from the programs and the files beside them, and a test compares the page with it.
"""

from __future__ import annotations

import difflib
import itertools
import re
from pathlib import Path

from reproducibility.exercise.texts import Exercise, all_exercises

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "guide" / "exercises.md"
HEAD = """---
description: "Small JAX programs that do not repeat, to repair: start, check, hint, offline."
---

# Exercises

{count} small programs that do not repeat, in the order of the chapters. Each has a fault that
users reported. Some are one wrong line; others are in a run that is resumed in a different process,
or in a run of two processes. You repair the program, and a judge runs it.

```console
reproducibility exercise start next
reproducibility exercise check
reproducibility exercise hint
reproducibility exercise list
```

1. `start next` writes the first program that you have not solved into `./exercises/`, and says
   what is observed and what would be right. `start keys_2` writes the one that you name.
2. Read the program, run it with Python, change it. [`twice` and `interrupt`](any_script.md) may
   help.
3. `check` calls the program's functions in fresh processes, with seeds, inputs and orders that the
   program cannot know. It compares what they return, bit for bit, and lists what is right and what
   is wrong. A repair that differs from ours can be right too.
4. `hint` gives one more hint with each call. `solution` shows the lines that change, once you
   have solved it; the same lines are below, folded.

Nothing needs a network or an accelerator, and nothing that you wrote is overwritten. Your
progress is in `exercises/progress.json`. [All flags](../reference/cli_evidence.md#exercise) are
on the page of the commands.

The judge tests behaviour. A program does not pass if the expected number is written into it, if its
shuffle or dropout is taken out, or if it ends early. The judge is a teacher and no guard: a program
that changes the code around it in its process can deceive it.
"""


def chapter_title(page: str) -> str:
    """Return the heading of a page."""
    found = re.search(r"^# (.+?)(?: \{.*)?$", (ROOT / "docs" / page).read_text("utf-8"), re.M)
    return found[1] if found else page


def repaired_lines(exercise: Exercise) -> str:
    """Return the lines that change, each group below the number of its line."""
    lines = exercise.program.splitlines(), exercise.solution.splitlines()
    changes = list(difflib.unified_diff(*lines, lineterm="", n=0))[2:]
    return "\n".join(re.sub(r"^@@ -(\d+).*", r"@@ line \1 @@", line) for line in changes)


def entry(exercise: Exercise) -> str:
    """Return an exercise: its name, what goes wrong, and its solution, folded."""
    block = f'```diff title="{exercise.name}.py"\n{repaired_lines(exercise)}\n```'
    solution = "\n".join(f"    {line}" if line else "" for line in block.splitlines())
    needs = f" It needs {exercise.needs.capitalize()}." if exercise.needs else ""
    return f'`{exercise.name}` {exercise.title}.{needs}\n\n??? success "Solution"\n{solution}\n'


def page() -> str:
    """Return the text of the page."""
    exercises = all_exercises()
    parts = [HEAD.replace("{count}", str(len(exercises)))]
    for chapter, group in itertools.groupby(exercises.values(), lambda each: each.chapter):
        found = list(group)
        name = found[0].name.partition("_")[0]
        path = chapter.removeprefix("guide/") if chapter.startswith("guide/") else f"../{chapter}"
        title = chapter_title(chapter)
        parts.append(f"## {title} {{ #{name} }}\n\nThe chapter: [{title}]({path}).\n")
        parts += [entry(each) for each in found]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
