"""Routes in OpenAI's shape."""
