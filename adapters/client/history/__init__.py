"""The history of an adapter, and the differences of its versions: calls, flows and records."""
