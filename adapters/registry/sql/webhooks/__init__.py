"""Webhooks in a SQL database: the last event that each has received, and which server delivers to it."""
