"""The store, which keeps the bytes of bundles by digest."""
