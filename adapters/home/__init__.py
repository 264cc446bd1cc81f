"""The home folder, which holds one server's registry, store, exports and lock."""
