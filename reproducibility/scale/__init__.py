"""How do many devices and processes compute the same bits?

The rule: no bit may depend on where something is computed, and no process continues alone.
Chapter: docs/scale/scaling_out.md

Read in this order: `lifeline` (processes are connected, and end together), `launch` (starts several
of them on one machine), `start` (a process joins the others), `agree` (what has to be equal is
compared before the first step), `sum` (the one order in which shards are added), `layout` (which
device owns which shards), `gradients` (of each shard, and their mean).

What this room changes for a whole process: `Layout.of` sets the option of JAX that makes virtual
devices of the CPU, since JAX has no other way. A process that joins others keeps its connection to
them, and hooks `sys.excepthook` and the exit of Python, since nothing else hears how a script ends.
A process that ends because a different one was lost does so by `os._exit`: tidying up would wait
for the lost one. The messages between processes are numbered, since a message needs the same name
in all of them.
"""
