"""Metrics, traces, logs and `rootstock top`."""
