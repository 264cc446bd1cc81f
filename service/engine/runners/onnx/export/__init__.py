"""Write a foundation's ONNX graphs. This needs torch and onnx, and runs in a separate process."""
