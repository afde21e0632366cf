"""``python -m gancore.ablation.worker ARGUMENTS``: ``gan`` that saves and stops when the queue is gone.

The queue holds the other end of stdin. It closes however the queue ends, killed too; the worker then gets the
SIGTERM that nobody is left to send.
"""

from __future__ import annotations

import os
import signal
import sys
import threading


def stop_with_the_queue() -> None:
    """Wait for the end of stdin, then send SIGTERM to this process."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=stop_with_the_queue, daemon=True).start()

    from gancore.cli.main import main

    main(sys.argv[1:])
