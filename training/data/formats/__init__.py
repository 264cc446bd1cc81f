"""The formats of labelled files: tables and CoNLL, their characters, tags and label values."""
