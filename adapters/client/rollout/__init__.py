"""The calls that try a version out beside the one that an alias points at."""
