"""The answers to expect, the versions that may give them, and the verdict on each answer."""
