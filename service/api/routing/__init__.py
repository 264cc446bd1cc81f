"""The fields of a routed request, and its answer in JSON."""
