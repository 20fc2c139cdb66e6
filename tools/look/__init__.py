"""What stands around the text of a page, how heavy is it, and where does it lead?

The rule: nothing of this changes a character of what a page says or shows.

In reading order: `clone` (how to get a clone), `reading` (how long a page takes, what its words
mean), `addresses` (llms.txt, robots.txt, anchors, redirects), `cards` (the picture beside a link),
`weight` (what a browser loads and nobody sees goes), `searching` (what the search box knows),
`english` (what reads foreign is counted), `links` (each leads somewhere), `hosts` (no other host
is asked).
"""
