"""Labelled rows: read, split, encoded and audited; and the demo adapters' data sets."""
