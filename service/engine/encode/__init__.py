"""Run one forward pass for each input: preprocess, queue, batch, run, postprocess."""
