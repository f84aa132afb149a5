"""Train forests in a process of its own, for programs whose window must not stand still.

scikit-learn-intelex holds Python's global lock while it fits: a tenth of a second for 5,000 painted
pixels, seconds for many more, in which a window in the same process cannot react. Here the fit runs
in a helper process that is started once and ends with its parent, however that ends.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import fields
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from napari_cellda.core.errors import UserError
from napari_cellda.core.forest import ForestParams, fit_forest, grow_forest
from napari_cellda.core.forest.trees import Forest
from napari_cellda.core.own_process import own_environment, python_module

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Header = dict[str, Any]


class TrainerLost(RuntimeError):
    """The helper process ended before it answered."""


class Trainer:
    """The parent's side: `fit` and `grow` are those of `core.forest`, computed in the helper.

    Not thread-safe but for `close`, which may come from any thread. Where no process can be
    started, training runs in this one.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._lock = threading.Lock()  # held while a pipe is in use

    def start(self) -> None:
        """Start the helper, which loads its libraries while this process goes on."""
        if self._closed or (self._process is not None and self._process.poll() is None):
            return
        self._tidy()
        with suppress(OSError):  # e.g. in a sandbox that forbids it: then train in this process
            self._process = _spawn()

    def close(self) -> None:
        """End the helper now; a call that waits for it returns without a forest."""
        self._closed = True
        if self._process is not None:
            self._process.kill()
            with self._lock:  # free at once: whoever waits for the helper sees it end
                self._tidy()

    def _tidy(self) -> int | None:
        """Free what an ended helper leaves; returns its exit code."""
        process, self._process = self._process, None
        if process is None:
            return None
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):  # a message that it never read
                if pipe is not None:
                    pipe.close()
        return process.wait()

    def fit(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        n_classes: int,
        params: ForestParams,
        *,
        feature_names: Sequence[str] = (),
    ) -> Forest | None:
        """Train a forest; see `fit_forest`. None if closed meanwhile."""
        job = self._job("fit", n_classes, params, feature_names)
        if not self._send(job, features, labels):
            if self._closed:
                return None
            return fit_forest(features, labels, n_classes, params, feature_names=feature_names)
        return self._receive()

    def grow(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        n_classes: int,
        params: ForestParams,
        *,
        feature_names: Sequence[str] = (),
    ) -> Iterator[Forest]:
        """Train a forest, its first trees first; see `grow_forest`.

        A consumer that stops asking after the first one saves the helper the rest.
        """
        job = self._job("grow", n_classes, params, feature_names)
        if not self._send(job, features, labels):
            if not self._closed:
                yield from grow_forest(
                    features, labels, n_classes, params, feature_names=feature_names
                )
            return
        while (forest := self._receive()) is not None:
            yield forest
            if not self._send({"do": "next"}):
                return

    def _job(
        self, what: str, n_classes: int, params: ForestParams, feature_names: Sequence[str]
    ) -> Header:
        names = list(feature_names)
        return {"do": what, "classes": n_classes, "params": params.model_dump(), "names": names}

    def _send(self, header: Header, *arrays: np.ndarray) -> bool:
        """Send a message; False if there is no helper. One that died is started again."""
        if arrays:
            self.start()
        with self._lock:
            process = self._process
            if process is None:
                return False
            assert process.stdin is not None
            try:
                write_message(process.stdin, header, *arrays)
            except OSError as error:
                self._lose(error)
        return True

    def _receive(self) -> Forest | None:
        """Return the helper's forest; None for "no more", or if closed meanwhile."""
        with self._lock:
            process = self._process
            if process is None:
                return None
            assert process.stdout is not None
            try:
                header, payload = read_message(process.stdout)
            except (OSError, EOFError) as error:
                self._lose(error)
                return None
        if "user_error" in header:
            raise UserError(header["user_error"])
        if "error" in header:
            raise RuntimeError(header["error"])
        return _unpack(header["fields"], payload) if payload else None

    def _lose(self, error: Exception) -> None:
        """Complain that the helper ended, unless it was told to."""
        if self._closed:
            return
        code = self._tidy()
        raise TrainerLost(
            f"The training process ended unexpectedly (exit code {code}), perhaps for lack of "
            "memory; the next stroke starts it again."
        ) from error


def _spawn() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        python_module(__spec__.name),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=own_environment(),
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )


# -- messages: a line of JSON, then the bytes of the arrays that it describes ------------------


def write_message(pipe: IO[bytes], header: Header, *arrays: np.ndarray) -> None:
    """Write one message."""
    described = [{"dtype": a.dtype.str, "shape": a.shape} for a in arrays]
    pipe.write(json.dumps({**header, "arrays": described}).encode() + b"\n")
    for array in arrays:
        pipe.write(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    pipe.flush()


def read_message(pipe: IO[bytes]) -> tuple[Header, list[np.ndarray]]:
    """Read one message.

    Raises
    ------
    EOFError
        If the other side has gone.
    """
    line = pipe.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    header = json.loads(line)
    arrays = []
    for described in header.pop("arrays"):
        dtype, shape = np.dtype(described["dtype"]), tuple(described["shape"])
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        content = pipe.read(size)
        if len(content) < size:
            raise EOFError
        arrays.append(np.frombuffer(content, dtype).reshape(shape))
    return header, arrays


# -- the helper's side -------------------------------------------------------------------------


def serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    """Answer training jobs until the parent has gone."""
    forests: Iterator[Forest] = iter(())
    with suppress(EOFError, OSError):
        while True:
            header, arrays = read_message(requests)
            try:
                if header["do"] != "next":
                    forests = _begin(header, *arrays)
                forest = next(forests, None)
            except UserError as error:
                write_message(replies, {"user_error": str(error)})
            except Exception as error:
                write_message(replies, {"error": f"{type(error).__name__}: {error}"})
            else:
                write_message(replies, *([{}] if forest is None else _pack(forest)))


def _begin(header: Header, features: np.ndarray, labels: np.ndarray) -> Iterator[Forest]:
    params = ForestParams(**header["params"])
    names, n_classes = header["names"], header["classes"]
    if header["do"] == "fit":
        return iter([fit_forest(features, labels, n_classes, params, feature_names=names)])
    return grow_forest(features, labels, n_classes, params, feature_names=names)


def _pack(forest: Forest) -> list[Any]:
    """Return a forest as a header and arrays: quicker than a file, and both sides are ours."""
    values = {f.name: getattr(forest, f.name) for f in fields(Forest) if f.init}
    arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
    plain = {name: value for name, value in values.items() if name not in arrays}
    return [{"fields": {"plain": plain, "arrays": list(arrays)}}, *arrays.values()]


def _unpack(described: Header, arrays: Sequence[np.ndarray]) -> Forest:
    values = {**described["plain"], **dict(zip(described["arrays"], arrays, strict=True))}
    values["feature_names"] = tuple(values["feature_names"])
    return Forest(**values)


def main() -> None:
    """Run as the helper process."""
    # A Ctrl-C in the terminal is for the parent; the helper ends with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Whatever a library prints must not get among the replies.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    if hasattr(os, "nice"):
        os.nice(5)  # the window comes first
    rng = np.random.default_rng(0)
    labels = np.arange(64) % 2
    fit_forest(rng.random((64, 4), dtype=np.float32), labels, 2, ForestParams(trees=2))
    serve(sys.stdin.buffer, replies)


if __name__ == "__main__":
    main()
