"""Does any script, unchanged, repeat, and where do two runs of it diverge?

The rule: nothing is pinned and nothing is added to the script; what could not be seen is said.

`ending` ends what was started, `screen` tells how far it is, and `start` runs a command with a
recorder in its Python (the room of that name is below this one). `sealed` has the lines of a record
and `reading` what they say, `sites` shows a line of source, `origins` follows arrays from call to
call, `programs` tells two programs apart, `pairs` puts processes together, `diverging` is what
comes of it, `unordered` compares calls whose order is chance, `align` finds where two records
diverge, `growing` while they grow, `inherited` what the first leaves for the second, `printed` what
they print, `written` what files they write. `dataflow` reads which lines may be behind a call,
`cause` confirms why, `repeat` executes a call again, `twice` runs the command and puts it together,
and `report` says it. `recomputed` reads which calls did not repeat in one run, `values` looks up
every argument, `reused` reads which keys were drawn from twice, `findings` puts both together, and
`record` records a part of a notebook.
For records of different commands, `graph` makes a graph of it, `updates` finds the updates in it,
`matched` puts calls together, `descent` goes back to where a difference begins, `aligned_lanes`
says of each call what it is to the other run, `sides` is what comes of it, `left_over` counts what
one side has alone, `instead` finds what may stand for something else, `beside` looks at what is no
update, `aligned` does it all, and `aligned_report` says it.
For a run that was stopped and resumed, `inputs` finds where the whole run had each input, `moments`
says when it is stopped, `steps` finds its steps, `backwards` looks at what comes before the first,
`onwards` walks along two runs from one step on, `ends` compares where that cannot be, `resumption`
compares a resumed process with the whole one, `resuming` says where a start is to end, `parts`
compares all of them, `lost` says it, `reprinted`
compares what they print and write, `rounded` looks at values that were never seen, and `interrupt`
runs the command. For what is outside of a script, `hidden` says what a hidden input is,
`hidden_numbers` and `hidden_table` have a row for each, `mirror` makes a folder in a different
place, `asking` finds the line that asks for one, `changing` runs the command with one changed,
`unheld` begins without what a script cannot bear held, `undone` says whether the script set it
back, `swept` what was found, and `sweep` does it all. `lanes` draws two runs, `drawn_aligned` two
records of different commands, and `drawn` makes a page of what any of these found.

Chapter: docs/guide/any_script.md
"""
