"""Turn inputs into samples: one module for each kind of input."""
