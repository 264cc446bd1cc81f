"""The limits of a whole model's LoRA."""

# The largest difference of an output, as a share of the largest output. With logits of size 5, a probability then
# moves by at most 0.23.
MAX_DIFFERENCE = 0.1
# The largest rank that a server takes by default.
MAX_RANK = 64
