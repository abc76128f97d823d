"""A source of events: the rings that a gadget's programs write to."""

from __future__ import annotations

from collections.abc import Iterator

from agent.bpf.bpf_object import ring_bytes
from agent.bpf.ring import RingBuffer
from agent.run.batch import Rows
from agent.run.source import RINGS, Loaded, LoadPlan


class Events(Loaded):
    """A gadget's object, loaded and attached, and its rings."""

    def __init__(self, plan: LoadPlan, ring_size: int = 0) -> None:
        """Load what plan says; ring_size in bytes, 0 for the gadget's own. Exhausted if the budget has no such room."""
        self._rings: list[RingBuffer] = []
        super().__init__(plan)
        try:
            rings = [name for name in RINGS if self.object.has_map(name)]
            sizes = [self.object.resize(name, ring_bytes(ring_size) if ring_size else None) for name in rings]
            self.load(sum(sizes))
            self._rings = [RingBuffer(self.object.map_fd(name), size) for name, size in zip(rings, sizes, strict=True)]
            self.object.attach(self._where)
        except BaseException:
            self.close()
            raise

    @property
    def fds(self) -> list[int]:
        """File descriptors that are readable when there is something to read."""
        return [ring.fd for ring in self._rings]

    @property
    def pressed(self) -> bool:
        """Whether it has to be read soon."""
        return any(ring.pressed for ring in self._rings)

    @property
    def waiting(self) -> bool:
        """Whether there is something to read."""
        return any(ring.waiting for ring in self._rings)

    def read(self) -> Iterator[Rows]:
        """The waiting rows, up to one message for each ring. They are valid until the next read."""
        for ring in self._rings:
            rows = ring.peek()
            if rows is not None:
                yield rows
                ring.release()

    def close(self) -> None:
        """Detach and free everything."""
        for ring in self._rings:
            ring.close()
        self._rings = []
        super().close()
