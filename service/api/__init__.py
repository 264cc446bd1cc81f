"""The HTTP routes. They parse requests, call the engine and map errors to statuses, which only they know."""
