"""What happened to an adapter, and how its versions differ: calls, flows and records."""
