"""JSON with one form for each value: read without doubt, and written byte for byte alike."""
