"""Equal modules of a design written once, however often they are placed.

Amaranth writes a module for every component that it meets. A card is mostly lanes and columns, so
that half of that text says again what has been said, and tools take it for different things.
"""

import re

_MODULE = re.compile(r".*?^module (\S+)\n.*?^end\n", re.MULTILINE | re.DOTALL)
_PLACED = re.compile(r"^  cell (\\\S+) (\S+)\n((?:    .*\n)*)", re.MULTILINE)
_CONNECTION = re.compile(r"^    connect (\S+)(.*\n)", re.MULTILINE)
_NUMBERED = re.compile(r"\\port\$\d+\$\d+")
"""What Amaranth calls a port that no signal gives its name: numbered through the whole design."""


class _Deduper:
    """The modules of a design by name, and what has been kept of them."""

    def __init__(self, text: str):
        self.kept: list[str] = []
        self._modules = {module[1]: module[0] for module in _MODULE.finditer(text)}
        self._by_body: dict[str, str] = {}
        self._seen: dict[str, tuple[str, dict[str, str]]] = {}

    def keep(self, name: str) -> tuple[str, dict[str, str]]:
        """The name of the module kept for this one, and how this one's ports are called there."""
        if name in self._seen:
            return self._seen[name]
        ports: dict[str, str] = {}

        def renamed(text: str) -> str:
            return _NUMBERED.sub(lambda m: ports.setdefault(m[0], f"\\port$${len(ports)}"), text)

        text, done, parts = self._modules[name], 0, []
        for cell in _PLACED.finditer(text):
            if cell[1] not in self._modules:
                continue
            target, outer = self.keep(cell[1])
            # Left of a connection stands a port of the module placed, right a wire of this one.
            connections = [
                f"    connect {outer.get(port, port)}{renamed(rest)}"
                for port, rest in _CONNECTION.findall(cell[3])
            ]
            parts += [renamed(text[done : cell.start()]), f"  cell {target} {cell[2]}\n"]
            parts += connections
            done = cell.end()
        before, _, after = "".join((*parts, renamed(text[done:]))).partition(f"module {name}\n")
        body = before + after
        if body not in self._by_body:
            self._by_body[body] = name
            self.kept.append(f"{before}module {name}\n{after}")
        self._seen[name] = self._by_body[body], ports
        return self._seen[name]


def dedupe(text: str, top: str) -> str:
    """RTLIL as Amaranth writes it, with those of `top`'s modules that are equal written once.

    A module that is kept has the name of the first of its places.
    """
    deduper = _Deduper(text)
    deduper.keep(f"\\{top}")
    return "".join(deduper.kept)
