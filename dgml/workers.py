"""Jobs side by side: a process for each core, and one thread in each."""

import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, redirect_stderr
from functools import partial
from multiprocessing import active_children, connection, get_context, parent_process
from typing import Any

from tqdm import tqdm

Begin = Callable[..., Callable[[], Any]]


def cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return min(os.cpu_count() or 1, 61)  # Windows can't wait for more processes


@contextmanager
def crew(workers: int, prepare: Callable[[], None]) -> Iterator[Begin]:
    """Yields ``begin(job, *arguments)``; what that returns waits for the job's result, and returns it.

    Each worker calls ``prepare`` first.  One worker is this process, and a job then begins when its result is asked
    for.  Of others, one starts when a job finds none idle.  Where one is killed, all end, and what waits for a job that
    is not done raises BrokenProcessPool.  An error in the block, Ctrl-C among them, ends all workers at once.
    """
    if workers == 1:
        prepare()
        yield partial
        return
    others = active_children()
    with one_thread_each(), ProcessPoolExecutor(workers, get_context("spawn"), start, (prepare,)) as pool:
        try:
            yield partial(begin_in, pool)
        except BaseException:
            with uninterrupted():
                kill([child for child in active_children() if child not in others])
            raise


def begin_in(pool: ProcessPoolExecutor, job: Callable, *arguments: Any) -> Callable[[], Any]:
    future: Future
    try:
        with uninterrupted():
            future = pool.submit(aside, job, *arguments)
    except BrokenProcessPool as error:
        future = Future()
        future.set_exception(error)

    def wait() -> Any:
        result, said = future.result()
        if said:
            tqdm.write(said, file=sys.stderr, end="")
        return result

    return wait


def kill(processes: list) -> None:
    """End processes at once, and wait until they have."""
    for process in processes:
        process.kill()
    for process in processes:
        process.join()


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Processes that start meanwhile have one thread for torch and NumPy, which read the variable once."""
    name, before = "OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS")
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put Ctrl-C off to the end of the block.  A process that starts in it never sees one."""
    pressed: list[bool] = []
    before = signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
    masks = hasattr(signal, "pthread_sigmask")  # not on Windows
    if masks:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        if masks:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


# ---------------------------------------------------------------- in a worker


def start(prepare: Callable[[], None]) -> None:
    """Leave Ctrl-C to the process that started this one, and end with it, whatever ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    tqdm.set_lock(threading.RLock())  # its own is a semaphore, which would outlive a worker that is killed
    prepare()


def end_with_parent() -> None:
    parent = parent_process()
    assert parent  # a worker has one
    connection.wait([parent.sentinel])
    os._exit(1)


def aside(job: Callable, *arguments: Any) -> tuple[Any, str]:
    """What a job returns, and what it wrote to stderr, which waits for the job's turn."""
    with redirect_stderr(io.StringIO()) as said:
        return job(*arguments), said.getvalue()
