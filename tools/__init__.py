"""What builds and checks the site, called by `make`, MkDocs and pytest.

At the top is what is called by name: `setup.sh` with `find_python.sh` and `index.sh`, `lock.sh`
and `faults.sh`, which make the environments; `hooks`, which MkDocs calls; `serve`; `api`, which
writes the API pages and the map in CONTRIBUTING; `practice`, which writes the page of the
exercises; and `known_across_versions` and `operations`,
which make tables, of what is in `eighteen` too. The rooms do the work. Each answers one question,
and a file imports only what is listed before it: `story`, `guard`, `session`, `labs`, `look`,
`takeaway`, `reuse`, `accelerator`.
"""
