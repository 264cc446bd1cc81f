"""Host adapters and share the machine between them, without knowing text or HTTP."""
