"""The routes of the Open Inference Protocol, and the tensors of their bodies."""
