"""Two runs differ: where, by how much, and why?

The rule: records decide and environments explain. What cannot be told is never called the same.
Chapter: docs/guide/flight_recorder.md

Read in this order: `child` (processes with a recorded environment), `replay` (a step, computed
again in one), `compare` (the first step, stage and leaf that differ), `trace` (the operation, on
its source line), `origin` (a step of two runs, operation by operation), `report` (a comparison as a
page).
"""
