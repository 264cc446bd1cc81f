"""Run batches on ONNX Runtime, without importing torch."""
