"""From any model to one of 8 bits: read, its bags cut out, quantised."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from halfdome.host.frontend.bags import Bag
from halfdome.host.frontend.calibration import Calibration, entries
from halfdome.host.frontend.errors import ModelError
from halfdome.host.frontend.identities import constants_returned
from halfdome.host.frontend.load import load
from halfdome.host.frontend.plan import SUFFIX, Plan
from halfdome.host.frontend.quantise import is_quantised, to_qoperator

if TYPE_CHECKING:
    from halfdome.host.frontend.torch_export import TorchModel

EXPORTED = ".pt2"
"""Of files that torch.export.save writes."""

Requests = Sequence[Mapping[str, np.ndarray]]
Said = Callable[[str], None]


@dataclass(frozen=True)
class Prepared:
    """A model that is ready to be compiled.

    Attributes
    ----------
    name : str, what reports call it
    model : onnx.ModelProto in QOperator form, whose bits in ONNX Runtime are the reference
    floating : onnx.ModelProto that it was quantised from, or None if it came quantised
    bags : Bag of each lookup, whose pooled rows are inputs of `model`
    ragged : inputs that are longer in one request than in another
    examples : requests of a model from PyTorch that are known, which show what bags hold
    torch : TorchModel that it came in as, or None
    """

    name: str
    model: onnx.ModelProto
    floating: onnx.ModelProto | None
    bags: tuple[Bag, ...]
    ragged: frozenset[str]
    examples: Requests
    torch: "TorchModel | None"

    def inputs_of(self, request: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What `model` takes for a request: pooled rows in place of what bags take."""
        return dict(request) if self.torch is None else self.torch.rest_inputs(request)


def prepare(
    model: Any, example_inputs: Sequence[object] | None = None, *,
    calibration: Calibration | None = None, shapes: Mapping[str, Sequence[int]] = {},
    say: Said = lambda text: None,
) -> Prepared:  # fmt: skip
    """Reads and quantises a model; parameters are those of `compile.compile`.

    Raises `ModelError` for a model, calibration or shapes that do not fit, and `TorchError` for a
    module that PyTorch does not export.
    """
    path = isinstance(model, str | Path) and Path(model).suffix == SUFFIX
    if path or isinstance(model, Plan):
        raise ModelError(
            f"{model if path else 'model'}: is compiled already; run it as it is, or give what it "
            "was compiled from"
        )
    say("reading the model")
    name = str(model) if isinstance(model, str | Path) else "model"
    if isinstance(model, str | Path) and Path(model).suffix == EXPORTED:
        model, example_inputs = _saved(model, example_inputs)
    elif hasattr(model, "state_dict"):
        name, model = type(model).__name__, _exported(model, example_inputs)
    if not hasattr(model, "rest_inputs"):
        if not isinstance(model, str | Path | bytes | onnx.ModelProto):
            raise ModelError(
                f"model: is a {type(model).__name__}, must be the path of an ONNX or {EXPORTED} "
                "file, an ONNX file's bytes, an onnx.ModelProto or a torch.nn.Module"
            )
        loaded = load(model, shapes)
        say("quantising")
        made = constants_returned(to_qoperator(loaded, calibration))
        return Prepared(name, made, _floating(loaded), (), frozenset(), (), None)
    if shapes:
        raise ModelError(
            f"--shape {next(iter(shapes))}=...: models from PyTorch have the shapes of the "
            "arguments that they are exported with; export it with others"
        )
    for why in model.stayed:
        say(f"{why}; the host pools it")
    given = [] if calibration is None else entries(calibration)
    if example_inputs is not None:
        given.append(model.named(example_inputs))
    loaded = load(model.rest, _sizes(model.rest))
    say("quantising")
    made = to_qoperator(loaded, [model.rest_inputs(each) for each in given] or None)
    made = constants_returned(made)
    return Prepared(name, made, _floating(loaded), model.bags, model.ragged, given, model)


def _sizes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """The shapes of the inputs, which say that a size of 0 is one, and none that is open."""
    return {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in model.graph.input
    }


def _floating(loaded: onnx.ModelProto) -> onnx.ModelProto | None:
    return None if is_quantised(loaded) else loaded


def _exported(module: Any, example_inputs: Sequence[object] | None) -> "TorchModel":
    if example_inputs is None:
        raise ModelError(
            "example_inputs: are missing; a torch.nn.Module is exported as it is called with them"
        )
    from halfdome.host.frontend.torch_export import from_torch

    return from_torch(module, example_inputs)


def _saved(
    path: str | Path, example_inputs: Sequence[object] | None
) -> "tuple[TorchModel, Sequence[object]]":
    """What a file of torch.export holds, and the arguments that it was exported with."""
    from halfdome.host.frontend.torch_export import from_exported, read_exported

    exported = read_exported(path)
    made = from_exported(exported, name=str(path))
    if example_inputs is None and exported.example_inputs is not None:
        example_inputs = exported.example_inputs[0]
    return made, example_inputs or ()
