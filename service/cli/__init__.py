"""The commands that need a server's parts: `rootstock serve`, `rootstock top` and `rootstock foundation`."""
