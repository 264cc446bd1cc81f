"""Write a foundation's ONNX graphs; needs torch and onnx, runs in a process apart."""
