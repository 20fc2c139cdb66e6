"""Can I do it myself?

The rule: a judge runs the program and compares what it returns; it never reads the program's text.
Chapter: docs/guide/exercises.md

Read in this order: `texts` (what exercises there are), `answers` (what a program returns, as both
processes read it), `runner` (runs the reader's program in a process of its own), `bench` (asks that
process, and notes what was right), `judged_first`, `judged_parts`, `judged_saved` and
`judged_later` (what each exercise asks for), `verdict` (judges one program), `desk` (the reader's
directory, and how far they are).

The programs in `programs/` are wrong on purpose: each has the fault that its exercise is about.
"""
