"""Serve on ONNX Runtime; imports no torch."""
