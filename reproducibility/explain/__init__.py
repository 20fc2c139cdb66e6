"""Two runs differ: where, by how much, and why?

The rule: records decide and environments explain. What cannot be told is never called the same.
Chapter: docs/guide/flight_recorder.md

Read in this order: `child` (processes with a recorded environment), `recompute` (steps, computed
again in this process), `stretches` (steps, each in a process with its environment), `replay` (a
step, compared with its record), `comparison` (what comparing comes to), `sides` (what can be
compared), `checkpoints` (two stores, or two files of arrays), `compare` (the first step, stage and
leaf that differ), `on_devices` (an operation on several devices), `same_key` (draws that use one
key), `trace` (every operation, with its source line), `aligned` (the one that first made the
difference), `origin` (a step of two runs, operation by operation), `page` (what all pages have in
common), `report` (a comparison as a page).

Two things outlive a call: a process keeps the compiled function of the fingerprints, and a thread
knows the processes that work for it. Neither changes a bit.
"""
