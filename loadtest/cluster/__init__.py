"""A simulation of many replicas with the costs of a measured one, and real replicas to compare it with."""
