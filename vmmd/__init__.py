"""vmmd: a microVM monitor.

Imports nothing: a cold start binds its socket before it loads the rest, and
``import vmmd`` must stay free for programs that want one module of it.
"""

__version__ = "0.1.0"

FIRECRACKER_VERSION = "1.16.1"
"""The Firecracker release whose behaviour this is, and which clients are told."""
