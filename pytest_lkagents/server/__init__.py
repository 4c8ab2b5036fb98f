"""LiveKit servers: a binary, a container, or one that runs elsewhere."""
