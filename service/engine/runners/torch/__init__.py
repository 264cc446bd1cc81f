"""Run batches on torch, on CUDA or on a CPU."""
