"""Real networks from ordinary packages, run as their users would: ``python -m benchmarks.real_files``."""
