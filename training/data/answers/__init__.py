"""The answers of rows: one label, any number of labels, or a number. Their columns, and how parts share them."""
