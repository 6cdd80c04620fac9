"""The kit's process: one plugin's functions, called by message, so that a crash or a hang costs one check."""

from __future__ import annotations

import sys

from harness.measure.worker_line import serve, start


def main(argv: list[str]) -> int:
    """Serve one parent over two descriptors."""
    line = start(argv)
    from harness.build.run import Plugins
    from harness.testing import watch
    from harness.testing.sessions import Sessions
    from harness.testing.steps import Steps

    watch.install()
    plugins = Plugins()
    steps = Steps(plugins)
    serve(
        line,
        {
            "reference": steps.reference,
            "step": steps.step,
            "lower": steps.lower,
            "oracle": steps.oracle,
            "splits": steps.splits,
            "score": steps.score,
            "run": Sessions(plugins).run,
            "close": lambda _message: {},
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
