"""The store of bundles' bytes, by digest."""
