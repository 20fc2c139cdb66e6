"""Is what is on disk whole, and is it all of the state?

The rule: what is not sealed and renamed into place never happened; what does not match its seal is
never read as if it did.
Chapter: docs/components/checkpoint_explained.md

Read in this order: `files` (atomic writing, chains, digests of files), `seal` (what a checkpoint is
sealed with), `orbax` (its arrays on disk), `checkpoint` (the whole state, saved, sealed and
restored).
"""
