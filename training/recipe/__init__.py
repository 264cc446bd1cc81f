"""The recipe: its sections, its file, and what it needs installed."""
