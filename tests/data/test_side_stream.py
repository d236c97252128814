"""The loader's own stream, with one that writes down what is asked of it: the trainer's host never waits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch

from livetrain.data.side_stream import SideStream


class Stream:
    def __init__(self, name: str, calls: list[tuple[Any, ...]]) -> None:
        self.name, self.calls = name, calls

    def __enter__(self) -> Stream:
        self.calls.append((self.name, "enter"))
        return self

    def __exit__(self, *_: object) -> None:
        self.calls.append((self.name, "exit"))

    def record_event(self) -> str:
        self.calls.append((self.name, "record_event"))
        return "event"

    def wait_event(self, event: str) -> None:
        self.calls.append((self.name, "wait_event", event))

    def synchronize(self) -> None:
        self.calls.append((self.name, "synchronize"))


def test_a_batch_is_handed_over_by_an_event() -> None:
    calls: list[tuple[Any, ...]] = []
    trainers = Stream("trainer", calls)
    cuda = SimpleNamespace(
        Stream=lambda device: Stream("side", calls),
        stream=lambda stream: stream,
        current_stream=lambda device: trainers,
    )
    side = SideStream(torch.device("cuda", 0), cuda)
    pinned = mock.Mock(name="pinned")
    with mock.patch.object(torch.Tensor, "pin_memory", lambda self: pinned), side.current():
        uploaded = side.upload(np.ones(3, np.float32))
        ready = side.ready()
    pinned.to.assert_called_once_with(torch.device("cuda", 0), non_blocking=True)
    kept = mock.Mock()
    side.hand_over(ready, [uploaded, kept])
    assert calls == [
        ("side", "enter"), ("side", "record_event"), ("side", "exit"), ("trainer", "wait_event", "event"),
    ]  # fmt: skip
    uploaded.record_stream.assert_called_once_with(trainers)
    kept.record_stream.assert_called_once_with(trainers)


def test_on_the_cpu_there_is_nothing_to_wait_for() -> None:
    side = SideStream(torch.device("cpu"))
    array = np.arange(4.0)
    with side.current():
        tensor = side.upload(array)
        assert side.ready() is None
    assert tensor.tolist() == array.tolist()
    side.hand_over(None, [tensor])
