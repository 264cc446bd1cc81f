"""Benchmarks of generated text: many adapters against none, and against other programs."""
