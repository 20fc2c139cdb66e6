"""What do the script of the home page, and the command that is asked about it, really do?

The rule: nothing of it is invented. tests/site/test_session.py draws it again from what was
recorded, and runs its script and commands again.

In reading order: `capture` (run the commands, keep what a terminal got), `curves` (run the script
four times, draw its losses), `screen` (what a terminal shows), `drawing` (the animation).
"""
