"""Scores, calibration, intervals and tests of predictions."""
