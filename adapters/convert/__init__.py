"""The conversion of PEFT adapters to LoRA, for every kind that PEFT can merge into the weights."""
