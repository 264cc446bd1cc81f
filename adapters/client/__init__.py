"""The HTTP client of a Rootstock server, and its errors."""
