"""Observers are told, and can hold nothing up."""

from gateway.supervise.observers import Observer, Observers, WhenServing


class Failing(Observer):
    def serving(self) -> None:
        raise RuntimeError("a fault")


def test_one_that_fails_keeps_nobody_else_from_being_told() -> None:
    said: list[str] = []
    observers = Observers([Failing(), WhenServing(lambda: said.append("serving"))])
    observers.tell(lambda observer: observer.serving())
    observers.tell(lambda observer: observer.stopping())
    assert said == ["serving"]
