"""Generate sequences of tokens, many passes for each: sampling options, the choice of a token, stop strings."""
