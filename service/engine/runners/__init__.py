"""Run batches on one foundation, with ONNX Runtime or torch."""
