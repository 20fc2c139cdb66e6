"""Which script does the learning path tell of, at each of its stages?

The rule: one text, `docs/story/train.marked`; every stage, and what changes between two, follow
from it. `stages` has them.
"""
