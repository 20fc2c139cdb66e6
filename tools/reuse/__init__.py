"""What of the last build can be shown again while the site is served?

The rule: what was made of the same inputs is the same; anything else is made again.

In reading order: `inputs` (what something was made of, as one SHA-256), `lab_outputs` (labs that
have run), `rendered` (pages that have not changed).
"""
