"""How a user stops a run: a first Ctrl+C is a wish, granted where nothing is lost; a second one stops at once."""

import signal
from threading import Event, current_thread, main_thread
from types import TracebackType
from typing import Any

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM") if hasattr(signal, name)]


class Interruption:
    """While it is entered, the first signal only sets `asked`; the next one raises `KeyboardInterrupt`.

    In another thread than the main one, where Python gives no signals, nothing changes.
    """

    def __init__(self) -> None:
        self._asked = Event()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        if current_thread() is main_thread():
            self._before = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def asked(self) -> bool:
        """Whether the user wants the run to end."""
        return self._asked.is_set()

    def _on_signal(self, *_: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self._asked.set()
