"""The adapters that a client asks to answer as one."""
