"""What cannot come in, from ONNX and from PyTorch."""


class ModelError(ValueError):
    """A model that cannot be used as it is. The message names what, and a remedy."""


class TorchError(ValueError):
    """A module that cannot be taken in. The message names what of it, and the rule or remedy."""
