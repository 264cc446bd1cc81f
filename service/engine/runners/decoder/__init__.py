"""Run passes of a decoder on torch, with a separate adapter for each sequence."""
