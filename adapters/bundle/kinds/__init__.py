"""One PEFT method a file: how its tensors become updates of sites."""
