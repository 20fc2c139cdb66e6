"""Are two trees the same, and if not, how far apart?

The rule: every bit, name, shape and dtype counts, and nothing else does.
Chapter: docs/components/hashing_explained.md

Read in this order: `static` (the text of what is no array), `leaves` (what a leaf is, its name and
its bits), `overlapping` (arrays that lie in one memory), `state` (what is part of a state beside
the bits), `hashing` (a tree becomes one string), `fingerprint` (the same question, asked on the
device in every step), `joined` (of many small leaves at once), `distance` (how far two arrays are
apart).
"""
