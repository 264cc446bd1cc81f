"""The life of a version on a server: its approval, its deletion, and its end."""
