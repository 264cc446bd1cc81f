"""Change what is no linear layer of a decoder: its normalisations, and the rows of tokens."""
