"""Load tests that check every answer."""
