"""Models of other libraries as adapters: heads, SetFit and sentence-transformers models, whole checkpoints."""
