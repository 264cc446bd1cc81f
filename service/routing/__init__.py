"""The router: a selector adapter chooses, for each text, the adapter that answers it."""
