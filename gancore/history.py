"""Who trained a run when: ``history.jsonl`` has a line for each start and each end of a session."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from gancore.assembly import Session
from gancore.compute import peak_memory
from gancore.errors import RunFolderError
from gancore.run_folder import RunFolder


@contextlib.contextmanager
def recorded(session: Session, folder: RunFolder, how: Mapping[str, Any]) -> Iterator[None]:
    """Write down the step plan, that a session starts, and how it ends.

    A session that is killed leaves no line of its end.

    Args:
        how: ``event``, ``"started"`` or ``"resumed"``, and what else is to be known of the start.
    """
    began, trainer = time.monotonic(), session.trainer
    plan = {"batch": session.config.train.batch, "n_critic": session.config.train.n_critic}
    folder.write_plan({**plan, **session.plan.describe()})
    folder.append_history({"time": _now(), "step": trainer.step_index, **how})
    reason = "finished"
    try:
        yield
    except BaseException as error:
        reason = str(error) or type(error).__name__
        raise
    finally:
        with contextlib.suppress(RunFolderError):  # a full disk is what the session itself ends with
            folder.append_history(
                {
                    "time": _now(),
                    "step": trainer.step_index,
                    "event": "stopped",
                    "reason": reason,
                    "seconds": round(time.monotonic() - began, 1),
                    "peak_memory_bytes": peak_memory(session.device),
                }
            )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
