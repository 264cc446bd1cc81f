"""The steps, one in each file, in order of number."""
