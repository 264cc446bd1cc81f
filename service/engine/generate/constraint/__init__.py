"""The form that an answer must have: grammars, and the tokens that they allow next."""
