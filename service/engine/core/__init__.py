"""Host adapters and share the machine between them; knows no text and no HTTP."""
