"""Reads the tokens that an adapter brings: from a tokenizer's file, from the manifest and from its tensors."""
