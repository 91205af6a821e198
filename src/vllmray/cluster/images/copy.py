"""Copying an image to other hosts without a registry: one stream from a daemon into the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from vllmray.errors import HostError
from vllmray.hosts.base import Host
from vllmray.hosts.facts import Image
from vllmray.hosts.fanout import SourceError, fan_out
from vllmray.images.recipe import derived_name
from vllmray.reporter import Reporter, Step
from vllmray.wait import Clock, SystemClock

MB = 1e6


def copy_image(
    source: Host, targets: Sequence[Host], name: str, reporter: Reporter, clock: Clock | None = None
) -> None:
    """Have an image of the source on every target, and the one that was made of it by adding Ray, if there is one.

    The source is read once, whatever the number of targets; what a target has already under the same id is not sent.
    A copy that breaks off leaves nothing on the target.

    Raises:
        HostError: the source does not have it, or it is for another processor than a target's; or a target did not
            load it: the other targets have it then.
    """
    with reporter.step(f"image {name} on {source.address}") as step:
        images = _with_derived(source, name)
        size = max(image.size for image in images.values())
        step.result(f"{size / MB:.0f} MB, {' and '.join(images)}")
        _refuse_other_processors(targets, name, images[name].architecture)
    waiting = []
    for target in targets:
        with reporter.step(f"host {target.address}") as step:
            has_it = all(_same(target.image(each), image) for each, image in images.items())
            step.result("has it already" if has_it else "does not have it")
            if not has_it:
                waiting.append(target)
    if not waiting:
        return
    with reporter.step("copying") as step:
        outcomes = _send(source, waiting, images, _Progress(step, size, clock or SystemClock()))
        failed = {address: error for address, error in outcomes.items() if error}
        done = len(waiting) - len(failed)
        step.result(f"{done} host{'' if done == 1 else 's'}")
        if failed:
            raise _failure(name, failed)


def _with_derived(source: Host, name: str) -> dict[str, Image]:
    image = source.image(name)
    if image is None:
        raise HostError(
            f"{source.address}: there is no image {name}",
            hint="Run this on a host that has it, or name one with --host (docker images lists what is there).",
        )
    derived = derived_name(image.identity)
    found = source.image(derived)
    return {name: image} | ({derived: found} if found else {})


def _refuse_other_processors(targets: Sequence[Host], name: str, architecture: str) -> None:
    """Raises HostError, before anything is sent, that names every target whose processor the image is not for."""
    others = {target.address: target.info().architecture for target in targets}
    misfits = {address: there for address, there in others.items() if architecture and there not in ("", architecture)}
    if misfits:
        raise HostError(
            f"image {name} is for {architecture}, and can't run on {', '.join(misfits)}",
            details="\n".join(f"{address}: its processor is {there}" for address, there in misfits.items()),
            hint="Nothing was sent. Copy to those targets from a host of their own kind, or pull the image there.",
        )


def _same(there: Image | None, here: Image) -> bool:
    return there is not None and there.identity == here.identity


class _Progress:
    """Reports to a step the bytes that each target has taken, and how fast."""

    def __init__(self, step: Step, size: int, clock: Clock) -> None:
        self.step = step
        self.size = size
        self._clock = clock
        self._began = clock.monotonic()

    def rate(self, taken: int) -> str:
        return f"{taken / MB / max(self._clock.monotonic() - self._began, 0.001):.0f} MB/s"

    def __call__(self, taken: Mapping[str, int]) -> None:
        for address, done in taken.items():
            # Never whole before the target says so: the daemon unpacks what it got.
            self.step.part(address, done=min(done, self.size - 1), total=self.size, status=self.rate(done))


def _send(
    source: Host, targets: Sequence[Host], images: Mapping[str, Image], progress: _Progress
) -> dict[str, Exception | None]:
    def sink(target: Host) -> Callable[[Iterator[bytes]], None]:
        def take(chunks: Iterator[bytes]) -> None:
            sent = 0

            def counted() -> Iterator[bytes]:
                nonlocal sent
                for chunk in chunks:
                    sent += len(chunk)
                    yield chunk

            target.load(counted())
            missing = [name for name in images if target.image(name) is None]
            if missing:
                raise HostError(f"{target.address}: the image was loaded, but {', '.join(missing)} is not listed there")
            progress.step.event(f"{target.address}: {sent / MB:.0f} MB at {progress.rate(sent)}")

        return take

    sinks = {target.address: sink(target) for target in targets}
    return fan_out(source.save(tuple(images)), sinks, progress)


def _failure(name: str, failed: Mapping[str, Exception]) -> HostError:
    told = [error for error in failed.values() if isinstance(error, HostError)]
    other = [error for error in failed.values() if not isinstance(error, HostError | SourceError)]
    if other:
        raise other[0]
    lines = [f"{address}: {getattr(error, 'details', None) or error}" for address, error in failed.items()]
    return HostError(
        f"image {name} was not copied to {', '.join(failed)}",
        details="\n".join(lines),
        hint=next((error.hint for error in told if error.hint), "Run the same command again: it sends only to those."),
    )
