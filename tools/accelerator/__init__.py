"""What does the device that is here do: does it repeat, what do flags change, what does it cost?

The rule: it needs a Python with JAX and this folder, no network and no set-up. A part that fails
says so in a sentence, and the others still run; what there was no time for is listed.

In reading order: `missing` (stands in for two small libraries that this Python may lack),
`trainings` (four small trainings), `more_operations` (those that accelerators are known for),
`sharded` (one of them on several devices), `asked` (what a fresh process is asked to measure),
`costs` (what our tools cost there), `answers` (starts such processes, one at a time), `tables` (a
part of the result, as JSON and Markdown), `switches` (which flags are tried on which platform),
`parts` (what is measured, part by part), `run` (one part after the other, in the time there is).
"""
