"""The steps from each form of the registry's database to the next."""
