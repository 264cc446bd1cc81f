"""A recipe that is made from a labelled file alone."""
