"""Publications, moves of aliases, deletion, undeletion, purge and retention in the database."""
