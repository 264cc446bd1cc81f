"""The network that trains: trunk, head, inputs, and its files."""
