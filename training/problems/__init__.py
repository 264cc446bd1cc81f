"""The differences between problem types: targets, losses, the fit of a head, scores, figures, the gate's unit."""
