"""The steps that upgrade the registry's database from each schema to the next."""
