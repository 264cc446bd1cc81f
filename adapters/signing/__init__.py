"""Signatures of adapters: the statement that is signed, private keys, and the keys that a server trusts."""
