"""What was each step of a run made of?

The rule: recording moves no bit, and a line is on disk before the checkpoint that builds on it.
Chapter: docs/guide/flight_recorder.md

Read in this order: `lines` (what a line holds), `ledger` (reads the lines of a run), `mend` (what
holds of a ledger, and what becomes of the rest), `writer` (writes lines, or compares), `walk` (two
ledgers, side by side), `given` (what a loop hands over, as of that moment), `step_words` (its
fingerprints), `losses`, `new_lines` (of those, lines), `surroundings` (the environment beside a
ledger), `static_facts` (static data, beside it too), `recorder` (writes a ledger beside a loop).

What outlives a call: the compiled programs of the last eight views of recorders, because the next
recorder of the same process would compile the same; and the environment of the process.
"""
