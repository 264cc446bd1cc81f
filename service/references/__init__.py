"""What the references of a request mean: the version of a split, the parts of a composition."""
