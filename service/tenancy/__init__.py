"""Tenants and their keys: who a request is from, what it may do, and how much."""
