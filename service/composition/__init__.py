"""The composition root: the only package that chooses the parts of a server."""
