"""One kind of input a file: an input becomes a sample."""
