"""Rows, pairs, intervals, agreement, and the machine and processes that they are measured on."""
