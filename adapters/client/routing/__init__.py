"""The router in the Python client."""
