"""An adapter: its spec and references, its bundle, its foundation, and where it lives."""
