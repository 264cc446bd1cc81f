"""Tables, charts and pages of benchmarks and scenarios."""
