"""The calls of what moves an adapter's requests between its versions."""
