"""The names that transformers gave a model's modules in the past."""
