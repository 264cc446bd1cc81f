"""Run passes of an encoder–decoder model on torch, with a separate adapter for each sequence."""
