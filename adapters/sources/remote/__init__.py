"""Adapters at addresses: the references, the allowed hosts, and the download within limits of size and time."""
