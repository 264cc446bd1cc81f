"""The queues that decide whose turn is next."""
