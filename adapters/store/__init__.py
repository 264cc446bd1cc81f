"""Where bundles' bytes lie, by digest."""
