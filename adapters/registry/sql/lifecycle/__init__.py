"""The end of versions in the database: deletion, undeletion, purge and retention."""
