"""What can a reader take along, and is it what the site says?

The rule: it is made of the tested blocks and the built pages, and the same source gives the same
bytes.

In reading order: `programs` (a chapter as a Python file), `notebooks` (a chapter or a lab as a
notebook), `downloads` (the links to both), `printable` (the site on one page), `offline` (the site
in one archive).
"""
