"""The cache of ONNX exports, and the check of an int8 export."""
