"""The routes under /v1/adapters, and /v1/events: adapters, their versions, aliases, cards and events."""
