"""The engine of one foundation: requests in, predictions out. Knows no HTTP.

Read in this order: engine.py, admission.py, queue.py, turns.py, packing.py, batcher.py, slots.py,
runners/onnx_runner.py.
"""
