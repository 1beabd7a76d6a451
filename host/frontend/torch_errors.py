"""What cannot come in from PyTorch."""


class TorchError(ValueError):
    """A module that cannot be taken in. The message names what of it, and the rule or remedy."""
