"""One worker of a batch: an order and then paths come in, a line of JSON per image goes out."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cellda.core.batch.files import Work, choice_for, describe_failure, drain_image
from napari_cellda.core.batch.models import open_map_maker
from napari_cellda.core.batch.workers import Order, answer_for
from napari_cellda.core.events import never

if TYPE_CHECKING:
    from typing import TextIO


def main() -> None:
    """Serve until the parent closes the line, or is gone."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    line = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer
    serve(Order.model_validate_json(sys.stdin.readline()), sys.stdin, line)


def serve(order: Order, paths: TextIO, answers: TextIO) -> None:
    """Answer every path."""
    work: Work | None = None
    for text in paths:
        path = Path(json.loads(text))
        try:
            work = work or open_work(order)
            files, notes = drain_image(work, path, never)
            answer = answer_for(written=files, notes=[note.text for note in notes])
        except Exception as error:
            failure = describe_failure(path, error)
            answer = answer_for(failure=failure.sentence, traceback=failure.traceback)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def open_work(order: Order) -> Work:
    """Open the model and all else that an order names."""
    pipeline, measured, _ = open_map_maker(order.model, order.channels, order.trusted)
    choice = choice_for(order.output, order.file_format, order.instances)
    return Work(pipeline, choice, order.made_with, measured)


if __name__ == "__main__":
    main()
