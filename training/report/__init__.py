"""The report of a run and the model card."""
