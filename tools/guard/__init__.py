"""Did every block that a page shows run, and did it print what the page shows?

The rule: there are no exceptions by mark. What cannot run is on a list, with its reason.

In reading order: `pages` (what a page may hold), `isolation` (each block begins in a fresh state),
`executed` (the record of what ran), `codeblocks` (the pytest plugin that runs blocks), `published`
(the built page, compared with that record).
"""
