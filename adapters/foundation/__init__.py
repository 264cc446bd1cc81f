"""Find, identify, describe and read a foundation's files."""
