"""The supported PEFT methods, one in each file: how their tensors become updates of sites."""
