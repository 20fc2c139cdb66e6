"""Planted faults: scripts that repeat, and what makes each of them differ from run to run.

The rule: who plants a fault says beforehand where it is and what it is. `make faults` compares that
with what `reproducibility twice` answers.
"""
