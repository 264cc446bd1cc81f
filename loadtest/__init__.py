"""Benchmarks of the engine and of HTTP, and load tests that check every answer."""
