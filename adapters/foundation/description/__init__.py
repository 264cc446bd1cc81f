"""The parts of a foundation's spec: language-model heads, task classes, sites and the shapes of a pass."""
