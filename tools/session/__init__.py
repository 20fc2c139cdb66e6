"""What does a training run look like in a terminal?

The rule: nothing of it is invented. tests/site/test_session.py draws it again from the recorded
events, and runs its commands again.

In reading order: `capture` (run the commands, keep what a terminal got), `screen` (what a terminal
shows of that), `drawing` (the animation on the home page).
"""
