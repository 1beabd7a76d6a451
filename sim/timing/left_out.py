"""What a platform that leaves values out raises where somebody needs them."""


class ValuesLeftOut(RuntimeError):
    """Somebody reads values that were not computed."""
