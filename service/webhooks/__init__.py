"""Webhooks: the events of the registry, delivered to addresses that the operator names.

Messages have the form and the signature of the Standard Webhooks specification
(https://www.standardwebhooks.com).
"""
