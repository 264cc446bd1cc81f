"""What an answer must be: grammars, and the tokens that they allow next."""
