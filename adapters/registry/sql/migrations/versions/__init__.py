"""One file per step, in order of number."""
