"""Images and recordings as a network reads them, and their changed copies."""
