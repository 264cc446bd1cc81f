"""A plain PEFT folder: what it may hold, the base that it names, and the manifest made for it."""
