"""Train an adapter from a recipe and judge it."""
