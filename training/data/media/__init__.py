"""Labelled images and recordings: their files, and how they are decoded."""
