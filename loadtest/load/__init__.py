"""Run one scenario: users, their traffic, every answer checked, figures recorded."""
