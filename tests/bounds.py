"""How long a test waits for what has to happen."""

# Seconds. A busy machine needs a part of it; whoever waits longer waits for ever. pytest's own limit is longer.
HANG = 240.0
