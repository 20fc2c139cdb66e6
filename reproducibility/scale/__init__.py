"""How do many devices and processes compute the same bits?

The rule: no bit may depend on where something is computed, and no process goes on alone.
Chapter: docs/scale/scaling_out.md

Read in this order: `lifeline` (processes find each other, and end together), `launch` (starts
several here), `processes` (what has to be equal is compared before the first step), `distributed`
(the layout, the gradient of each shard, and the one order of their sum).
"""
