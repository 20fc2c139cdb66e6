"""What was each step of a run made of?

The rule: recording moves no bit, and a line is on disk before the checkpoint that builds on it.
Chapter: docs/guide/flight_recorder.md

Read in this order: `ledger` (a line a step, in a chain), `recorder` (writes it beside a loop).
"""
