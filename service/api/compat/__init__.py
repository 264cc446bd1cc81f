"""The routes of other servers' APIs, one file for each family. Each answers what the native route answers."""
