"""One scenario's run: users, their traffic, the check of every answer, and the figures."""
