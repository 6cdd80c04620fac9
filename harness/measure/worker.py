"""The process that measures: numpy, harness and one target plugin; everything else is the runtime's.

Started as ``python -m harness.measure.worker READ_FD WRITE_FD``; it does what the parent's messages say and dies
with its parent. The handshake goes out before anything large is imported.
"""

from __future__ import annotations

import sys

from harness.measure.worker_line import serve, start


def main(argv: list[str]) -> int:
    """Serve one parent over two descriptors."""
    line = start(argv)
    from harness.measure.session import Bench  # after the handshake: another harness version may lack it

    bench = Bench()
    kinds = (
        "configure",
        "open",
        "warm",
        "batch",
        "compute",
        "parts",
        "floor",
        "infer",
        "drive",
        "loadgen",
        "evaluate",
        "placement",
        "objects",
        "layers",
        "close",
    )
    serve(line, {kind: getattr(bench, kind) for kind in kinds}, bench.known)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
