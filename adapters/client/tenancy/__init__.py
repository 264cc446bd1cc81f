"""The calls of keys and of the quotas of tenants."""
