"""Routes in the form of OpenAI's API, and the limits of this server."""
