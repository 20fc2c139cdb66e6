"""Are two trees the same, and if not, how far apart?

The rule: every bit, name, shape and dtype counts, and nothing else does.
Chapter: docs/components/hashing_explained.md

Read in this order: `leaves` (what a leaf is, and its bits), `hashing` (a tree becomes one string),
`fingerprint` (the same question, asked on the device in every step), `distance` (how far two arrays
are apart).
"""
