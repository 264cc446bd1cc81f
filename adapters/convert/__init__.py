"""Convert any PEFT method that merges into weights to LoRA, in a process apart."""
