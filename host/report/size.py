"""Numbers of bytes as people read them."""

_UNITS = ("B", "KiB", "MiB", "GiB")


def size(nbytes: float) -> str:
    """Bytes for people: 1000 B, 1.5 KiB, 64 KiB, 3 MiB."""
    power = 0
    while nbytes >= 1024 and power < 3:
        nbytes, power = nbytes / 1024, power + 1
    digits = f"{nbytes:.0f}" if nbytes >= 100 else f"{nbytes:.3g}"
    return f"{digits} {_UNITS[power]}"
