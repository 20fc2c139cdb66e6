"""Does any script, unchanged, repeat, and where do two runs of it diverge?

The rule: nothing is pinned and nothing is added to the script; what could not be seen is said.

`start` runs a command with a recorder in its Python (the room of that name is below this one), and
`record` does so for a part of a notebook; `reading` reads a record, `align` finds where two of them
diverge, `cause` confirms why, `twice` runs the command and puts it together, and `report` says it.

Chapter: docs/guide/any_script.md
"""
