"""Is what is on disk whole, and is it all of the state?

The rule: what is not sealed and renamed into place never happened; what does not match its seal is
never read as if it did.
Chapter: docs/components/checkpoint_explained.md

Read in this order: `files` (atomic writing, chains, digests of files), `found` (what is at a path),
`containers` (files of arrays that others write), `seal` (what a checkpoint is sealed with),
`moment` (a copy of a state as it is at the call), `orbax` (its arrays on disk), `restoring` (how
they are read back and checked), `checkpoint` (the whole state, saved, sealed and restored),
`stored` (the arrays at a path, whoever wrote them), `whole` (is that as it was written).
`generators` makes those of NumPy and Python a part of the state.

What outlives a call: the stores whose last save nobody waited for. The interpreter waits for them
before it ends and says on stderr which failed, because a script that forgets to ask would lose its
last checkpoint. A forked child forgets them: it has no threads that save.
"""
