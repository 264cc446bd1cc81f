"""The HTTP protocol of a connection, and its bounds."""
