"""How does someone else check my run?

The rule: all of a run or a bundle may be forged. What counts as checked was computed again here, or
is tied by a digest to something that was; and a verdict says no more than that.
Chapter: docs/guide/verification.md

In reading order: `merkle` (one digest of many parts, and proofs of each), `limits` (what is refused
before it is read), `commitment` (what a run is, in a statement to publish before anyone
asks), `claims` (what a run says is of the right form), `chosen` (what is computed again, and what
follows for the rest), `request` (what an audit is asked for),
`progress` (an interrupted audit goes on), `recheck` (what is computed in the
recorded environment), `verdict` (what an audit comes to, in words), `audit` (all of it).
"""
