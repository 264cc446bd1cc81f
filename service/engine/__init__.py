"""The engine of one foundation: requests in, predictions out. Knows no HTTP.

Read in this order: engine.py, queue.py, batcher.py, slots.py, runners/onnx_runner.py.
"""
