"""What does a command line ask for, and what is shown of the answer?

The rule: results go to stdout; progress and every reason for a code other than 0 go to stderr.
Chapter: docs/guide/using_the_project.md

Read in this order: `terminal` (what is printed), `process_state` (all that is changed in the
process, and why), `parse` (tyro and its complaints), `arguments` (those that cannot be used),
`training` (trains), `runs` (reads runs), `audits` (serves somebody else), `machines` (asks this
machine), `scripts` (runs a script of yours), `exercises` (gives exercises), `commands` (the list,
and how each of them ends).

Nothing heavy is imported before the command line is read: help and a mistyped flag answer in a
fraction of the time that JAX takes to load. A command imports what does its work when it is called.
"""

from reproducibility.cli.commands import main

__all__ = ["main"]
