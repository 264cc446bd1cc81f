"""Generate text: many passes for each sequence, which share every pass with other sequences."""
