"""sweep(): one function for many settings, on whatever runs functions; results are kept as they come."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy

#: What a function is called with, and what it returns: names, and values that JSON can hold.
Row = dict[str, Any]


def sweep(
    function: Callable[[Row], Row],
    settings: Iterable[Row],
    path: str | PathLike[str] | None = None,
    *,
    executor: Any = None,
    workers: int | None = None,
) -> Iterator[Row]:
    """Yield ``settings | function(settings)`` for each of many settings, as soon as each is ready.

    Parameters
    ----------
    function : takes a dict of settings and returns a dict of results; a function of a module, so that other
        processes find it
    settings : dicts of numbers, texts, and lists of them
    path : a file to which each result is added at once, as a line of JSON. What is in it already is yielded
        first and not computed again, so a sweep that was killed goes on where it was.
    executor : what runs the function: any ``concurrent.futures`` executor, mpi4py's ``MPIPoolExecutor``, a
        client of Dask, or anything else with ``submit(function, settings)`` whose futures have ``result()``
        and ``add_done_callback()``. By default, processes on this machine, with one thread of BLAS each.
    workers : how many processes, by default one for each core

    Raises
    ------
    ExceptionGroup
        The function failed for some settings; all others are yielded first. The next sweep tries them again.

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> with ThreadPoolExecutor(1) as threads:
    ...     rows = sweep(lambda row: {"square": row["x"] ** 2}, [{"x": 2}, {"x": 3}], executor=threads)
    ...     list(rows)
    [{'x': 2, 'square': 4}, {'x': 3, 'square': 9}]
    """
    wanted = {_key(row): row for row in map(_plain, settings)}
    done = {} if path is None else _read(Path(path))
    yield from (wanted[key] | result for key, result in done.items() if key in wanted)
    missing = {key: row for key, row in wanted.items() if key not in done}
    if not missing:
        return
    problems: list[Exception] = []
    with _processes(workers, len(missing)) if executor is None else _as_it_is(executor) as running:
        for key, outcome in _outcomes(function, missing, running):
            if isinstance(outcome, Exception):
                outcome.add_note(f"settings: {missing[key]}")
                problems.append(outcome)
                continue
            result = _plain(outcome)
            if path is not None:
                _append(Path(path), {"settings": missing[key], "result": result})
            yield missing[key] | result
    if problems:
        raise ExceptionGroup(f"{len(problems)} of {len(wanted)} settings failed", problems)


def _outcomes(
    function: Callable[[Row], Row], settings: dict[str, Row], executor: Any
) -> Iterator[tuple[str, Any]]:
    """Yield the key and the result, or the exception, of all settings as they are ready."""
    import queue

    ready: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    futures = []
    for key, row in settings.items():
        future = executor.submit(function, row)
        future.add_done_callback(lambda future, key=key: ready.put((key, future)))
        futures.append(future)
    try:
        for _ in settings:
            key, future = ready.get()
            try:
                yield key, future.result()
            except Exception as error:
                yield key, error
    finally:
        for future in futures:  # of a sweep that is left early
            future.cancel()


# --- processes ---------------------------------------------------------------------------------------


@contextmanager
def _as_it_is(executor: Any) -> Iterator[Any]:
    yield executor


@contextmanager
def _processes(workers: int | None, jobs: int) -> Iterator[Any]:
    """Give an executor of processes that end with this one, however it ends."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = min(jobs, workers or cores)
    context = multiprocessing.get_context("spawn")  # forks would share the threads of libraries
    with ProcessPoolExecutor(count, mp_context=context, initializer=_begin_worker) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _begin_worker() -> None:
    """Use one thread of BLAS in this process, and end with its parent."""
    import multiprocessing
    import threading

    import threadpoolctl

    threadpoolctl.threadpool_limits(1)
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, name="minidl sweep", daemon=True).start()


# --- the file of results -----------------------------------------------------------------------------


def _plain(row: Any) -> Row:
    """Return a dict of values as JSON can hold them.

    Raises
    ------
    TypeError
        It is no dict, or holds something else.
    """
    if not isinstance(row, dict):
        raise TypeError(f"sweep: settings and results are dicts, got {type(row).__name__}")
    import json  # which programs without sweeps do not need

    plain: Row = json.loads(json.dumps(row, default=_number))
    return plain


def _number(x: Any) -> Any:
    if isinstance(x, (numpy.generic, numpy.ndarray)):
        return x.tolist()
    if hasattr(x, "numpy"):
        return x.numpy().tolist()
    raise TypeError(f"sweep: settings and results hold numbers, texts and lists, got {type(x).__name__}")


def _key(row: Row) -> str:
    import json

    return json.dumps(row, sort_keys=True)


def _append(path: Path, line: Row) -> None:
    import json

    with open(path, "a") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> dict[str, Row]:
    """Return the results in a file by their settings; a line that was not completed is cut off.

    Raises
    ------
    ValueError
        The file is something else.
    """
    import json

    if not path.exists():
        return {}
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    found: dict[str, Row] = {}
    for number, line in enumerate(data[:whole].splitlines(), 1):
        try:
            row = json.loads(line)
            found[_key(row["settings"])] = row["result"]
        except (ValueError, TypeError, KeyError):
            raise ValueError(f"{path}, line {number}, is no result of a sweep: {line[:80]!r}") from None
    if whole < len(data):
        os.truncate(path, whole)
    return found
