"""Routes in the forms of other servers' APIs. Each is a thin form of a native route, with the same answer."""
