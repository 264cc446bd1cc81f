"""Adapters: their specs, references and bundles, the foundation they run on, and the registry and store."""
