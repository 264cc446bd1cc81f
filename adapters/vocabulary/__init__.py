"""Tokens that an adapter brings: their texts, and the rows that they have in the foundation's embedding."""
