"""Fit heads and adapters: methods, candidates, epochs, checkpoints."""
