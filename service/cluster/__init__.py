"""Replicas of the server on Ray Serve: requests go to a replica that holds their adapter."""
