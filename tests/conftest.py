from __future__ import annotations

import signal

# A shell that starts the tests in the background has them ignore SIGINT, and ignoring is inherited:
# without this the tests of Ctrl-C would test nothing there.
signal.signal(signal.SIGINT, signal.default_int_handler)
