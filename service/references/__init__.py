"""The meaning of a request's references: the version of a split, the parts of a composition."""
