"""The tap between a worker and its LiveKit server: everything is forwarded, the agent protocol becomes a transcript."""
