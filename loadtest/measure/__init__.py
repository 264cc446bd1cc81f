"""Rows, pairs, intervals, agreement, the machine and its processes, and the record of a run."""
