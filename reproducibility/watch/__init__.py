"""What does a script do, seen from inside of its own Python?

The rule: standard library, NumPy and JAX only, from Python 3.10 on; the script is never disturbed,
and what goes wrong in here is written down and ends the watching, not the script.

`late` is NumPy once it is needed, `compiled` is what is known of a program, `limit` ends a run in a
step, `settings` are those of
JAX under which our own programs run, `surroundings` are machine and libraries, `source` finds the
script's line, `names` says what the user calls what a library numbers, and `hook` is where all pass
that JAX executes, and the only file that knows private names of JAX. `mixing` and `prints` turn
arrays into fingerprints, `hiding` leaves secrets out, `writing` has the files, `texts` keeps what a
program does, `lines` are those of a file, `threads` says whose file it is and `callbacks` what the
host gave a program, `shared` looks at memory that NumPy writes to, `execution`, `keeping` and
`again` are for one call that is executed again, `ulps` says how far apart results are of calls that
`second` computes a second time while the script runs, `derived` are keys by what they are made of,
`draws` says which of them a program draws from, `consumed` writes down their words, `asides` does
both beside a call, `calls` writes down the calls, `wrap` puts something around a function, `values`
sees what leaves JAX, `children` follows what the script starts, `host` sees what it asks of the
machine, `versions_of_files` says which files were at work, `hold` fixes one thing that varies,
`elsewhere` changes what does not, `begin` puts them together, and `sitecustomize` is what Python
imports when it starts.

This folder imports nothing of the package around it: it is loaded under another name, by a Python
that may not have the package. What is changed in the process: eight names of JAX,
which are put back at the end, and in a process that is recorded from its start those of Python and
NumPy that ask for entropy, the time, a listing or a draw, and `os._exit`.

Chapter: docs/guide/any_script.md
"""
