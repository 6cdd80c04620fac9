"""The measure plane: fresh workers, launch-sets, latency, memory, noise and the host's fingerprint."""
