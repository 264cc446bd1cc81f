"""The longest time that a test waits for an event."""

# Seconds. Even a busy machine needs only part of them, so a longer wait is a hang. pytest's own limit is longer.
HANG = 240.0
