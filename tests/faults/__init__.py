"""Planted faults: scripts that repeat and resume, and what makes each of them do so no longer.

The rule: who plants a fault says beforehand where it is and what it is. `make faults` compares that
with what `reproducibility twice` and `reproducibility interrupt` answer.
"""
