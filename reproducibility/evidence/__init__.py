"""How does someone else check my run?

The rule: all of a run or a bundle may be forged. What counts as checked was computed again here, or
is tied by a digest to something that was; and a verdict says no more than that.
Chapter: docs/guide/verification.md

In reading order: `merkle` (one digest of many parts, and proofs of each), `limits` (what is refused
before it is read), `commitment` (what a run is, in a statement to publish before anyone asks).
"""
