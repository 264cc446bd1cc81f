"""The engine of one foundation: it turns requests into predictions and knows no HTTP.

`core` hosts adapters and shares the machine between requests. `encode` runs one forward pass for each input.
`runners` compute on ONNX Runtime or torch. Read encode/engine.py, core/admission.py, encode/queue.py,
core/turns/fair_queue.py, encode/packing.py, encode/batcher.py, core/slots.py and runners/onnx/runner.py, in this
order.
"""
