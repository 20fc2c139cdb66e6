"""What does a run look like when everything is done right?

The rule: the bits are a function of the identity alone; whatever else is asked for moves none.
Chapter: docs/workflow/complete_flow.md

Read in this order: `config` (identity and execution), `data` (batch i is a function of seed and
step), `model` (key in, parameters out), `run` (a run on disk), `step` (the state and the
three programs), `resume` (what a directory says before its run continues), `loop` (from step to
step), `check` (every byte of a run), `doctor` (does this machine reproduce itself?).

A process keeps what it has compiled: the programs of the last few identities and settings of JAX
(in the file of the step), since compiling takes longer than short runs; and the digits that it has
read. Nothing of it changes a bit: what was compiled under other settings is not used.
"""
