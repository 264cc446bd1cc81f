"""The folder that holds one server's registry, store, exports and lock."""
