"""Other programs that answer the same requests."""
