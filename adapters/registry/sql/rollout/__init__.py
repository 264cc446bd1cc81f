"""The tables of versions that try out beside the one that an alias points at."""
