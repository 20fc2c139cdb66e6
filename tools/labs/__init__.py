"""How does a notebook that the build executes become a page like the others?

The rule: what a lab's page shows depends on the lab and the machine, not on who builds the site.

In reading order: `settings` (which files are labs, and how they run), `markup` (their pages),
`cells` (what those pages show, and what an execution gave, in one form).
"""
