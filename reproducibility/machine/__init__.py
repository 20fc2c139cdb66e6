"""What surrounds a run, and can it be trusted?

The rule: a machine is asked, not believed. What is published about a version explains an answer;
it never replaces the question.
Chapter: docs/guide/using_the_project.md

Read in this order: `environment` (what surrounds a run, as data, and what of it can change bits),
`child` (fresh processes of Python), `reproducers` (small programs that came out wrong
somewhere), `faults` (the table of published faults, and what to do about each), `trial` (one
process that runs them), `known` (asks this machine about all of them).

A fresh process ends by `os._exit` when the one that started it has gone: its main thread may be at
work, and nobody is left to wait for it. Nothing else here changes a process as a whole.
"""
