"""PyTorch in: a module becomes embedding bags and an ONNX model of the rest.

`torch.onnx` writes an embedding bag as a loop, of which nobody can tell what it was. So bags that
cards pool are cut out of what `torch.export` sees, and their outputs become inputs of the rest.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from halfdome.host.frontend import torch_bags
from halfdome.host.frontend.bags import Bag, pool
from halfdome.host.frontend.errors import ModelError, TorchError
from halfdome.host.frontend.finite import check_array
from halfdome.host.frontend.sessions import quiet

try:
    import onnxscript  # noqa: F401  (torch.onnx writes with it)
    import torch
    from torch.utils import _pytree as pytree
except ImportError as error:
    raise ImportError(f"PyTorch modules: {error}; `pip install 'halfdome[models,torch]'`") from None

if TYPE_CHECKING:
    from onnx import ModelProto

_LSTM = torch.ops.aten.lstm.input
_QUANTISED = "torch.ao.nn"
"""Where the modules are that torch.ao.quantization puts in place of others."""


@dataclass(frozen=True)
class TorchModel:
    """A module whose embedding bags that cards pool stand beside the rest of it.

    Attributes
    ----------
    rest : onnx.ModelProto in fp32; its inputs are those of the module that it still uses, and a
        float32[bags, dim] for each of `bags`
    bags : Bag of each lookup, in order of use
    stayed : why lookups of `rest` are none of `bags`
    inputs : name of each leaf of the module's arguments, in their order; None for one that is no
        tensor
    outputs : name of each output of the module, and of `rest`
    """

    rest: "ModelProto"
    bags: tuple[Bag, ...]
    stayed: tuple[str, ...]
    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]

    @property
    def ragged(self) -> frozenset[str]:
        """Inputs that are longer in one request than in another: what bags with offsets take."""
        taken = {
            source.input
            for bag in self.bags
            for source in (bag.indices, bag.weights)
            if bag.offsets is not None and source is not None
        }
        return frozenset(taken - {value.name for value in self.rest.graph.input})

    def named(self, arguments: Sequence[object]) -> dict[str, np.ndarray]:
        """Arguments of the module as arrays by the names of inputs.

        Raises `TorchError` for more or fewer leaves than `inputs`, and for bfloat16.
        """
        leaves = pytree.tree_leaves(tuple(arguments))
        if len(leaves) != len(self.inputs):
            raise TorchError(
                f"arguments: hold {len(leaves)} values, must be {len(self.inputs)}, as they were "
                "when the module was exported"
            )
        named = {
            name: leaf for name, leaf in zip(self.inputs, leaves, strict=True) if name is not None
        }
        _of_numpy(named)
        return {
            name: leaf.detach().cpu().numpy() if isinstance(leaf, torch.Tensor) else leaf
            for name, leaf in named.items()
        }

    def pool(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What bags make of a request: float32[bags, dim] by the name of the input of `rest`."""
        return pool(self.bags, inputs)

    def rest_inputs(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What `rest` takes for a request: pooled rows, and what it uses of the request itself.

        Raises `ModelError` for an input that is missing.
        """
        pooled = self.pool(inputs)
        taken = {}
        for value in self.rest.graph.input:
            if value.name not in pooled and value.name not in inputs:
                raise ModelError(f"input {value.name}: is missing; there are {', '.join(inputs)}")
            taken[value.name] = pooled.get(value.name, inputs.get(value.name))
        return taken


def from_torch(
    module: torch.nn.Module, arguments: Sequence[object], *, outputs: Sequence[str] | None = None
) -> TorchModel:
    """Exports a module as it is called with `arguments`, whose shapes are from then on fixed.

    Parameters
    ----------
    module : torch.nn.Module in evaluation mode
    arguments : positional arguments: tensors, or lists, tuples and dictionaries of them
    outputs : names for its outputs; without them, `output` or `output_0` and so on

    Tables of embedding bags that cards pool are quantised to fused rows of 8 bits. How `sparse` and
    `scale_grad_by_freq` are set is of no matter: they are about gradients. Bags that no card pools
    are lookups of the rest, in floating point and with as many indices as in `arguments`: those of
    the mode max, whose operands the module computes, or whose table is no float32 parameter.

    Raises `TorchError` for a module that PyTorch does not export, an output that is no tensor, and
    bfloat16, and `ModelError` for a parameter that is not finite.
    """
    if not isinstance(module, torch.nn.Module):
        raise TorchError(f"module: is a {type(module).__name__}, must be a torch.nn.Module")
    if module.training:
        raise TorchError("module: is in training mode; call module.eval() first")
    for path, part in module.named_modules():
        if type(part).__module__.startswith(_QUANTISED) and "quantized" in type(part).__module__:
            raise TorchError(
                f"{path or 'module'}: is a {type(part).__module__}.{type(part).__name__}, which "
                "torch.export does not take; give the module as it was before torch.ao.quantization"
                ", it is quantised here"
            )
    arguments = tuple(arguments)
    name = type(module).__name__
    with _quiet(), torch.no_grad(), _told(name, "torch.export"):
        exported = torch.export.export(module, arguments)
    return _parted(name, exported, arguments, outputs)


def read_exported(path: str | Path) -> torch.export.ExportedProgram:
    """What torch.export.save wrote. Raises `TorchError` for a file that is missing or no such."""
    if not Path(path).is_file():
        raise TorchError(f"{path}: there is no such file; torch.export.save writes one")
    try:
        with _quiet():
            return torch.export.load(path)
    except Exception as error:  # of whatever class the damage leads to
        raise TorchError(
            f"{path}: torch.export.load cannot read it ({type(error).__name__}); "
            "torch.export.save writes such files"
        ) from None


def from_exported(
    exported: torch.export.ExportedProgram, *, name: str = "model",
    outputs: Sequence[str] | None = None,
) -> TorchModel:  # fmt: skip
    """What `from_torch` makes of a module, of one that torch.export has exported already.

    Parameters
    ----------
    exported : torch.export.ExportedProgram with its example inputs, shapes fixed
    name : what errors call it
    outputs : as for `from_torch`

    Raises `TorchError` as `from_torch` does, and for a program that leaves sizes open, takes
    keyword arguments or holds no example inputs.
    """
    if exported.example_inputs is None:
        raise TorchError(f"{name}: holds no example inputs; torch.export.export keeps them")
    arguments, keywords = exported.example_inputs
    if keywords:
        raise TorchError(
            f"{name}: takes {next(iter(keywords))} by keyword; export it with positional arguments"
        )
    for node in exported.graph.find_nodes(op="placeholder"):
        value = node.meta["val"]
        if isinstance(value, torch.Tensor) and not all(isinstance(n, int) for n in value.shape):
            sizes = ", ".join(map(str, value.shape))
            raise TorchError(
                f"{name}: input {node.name} leaves sizes open, [{sizes}]; export it without "
                "dynamic_shapes"
            )
    return _parted(name, exported, arguments, outputs)


def _parted(
    name: str, exported: torch.export.ExportedProgram, arguments: Sequence[object],
    outputs: Sequence[str] | None,
) -> TorchModel:  # fmt: skip
    """Bags, and the rest as ONNX."""
    arguments = tuple(arguments)
    with _quiet(), torch.no_grad():
        with _told(name, "torch.export"):
            rules = _rules(exported.graph)
            if rules or torch_bags.looks_up(exported.graph) or _changes(exported.graph):
                exported = exported.run_decompositions(rules)  # into one that changes nothing
        _stateless(name, exported.graph_signature)
        inputs = tuple(
            spec.arg.name if isinstance(spec.arg, torch.export.graph_signature.TensorArgument)
            else None
            for spec in exported.graph_signature.input_specs
            if spec.kind is torch.export.graph_signature.InputKind.USER_INPUT
        )  # fmt: skip
        leaves = pytree.tree_leaves(arguments)
        _of_numpy({each: leaf for each, leaf in zip(inputs, leaves, strict=True) if each})
        _of_numpy(exported.state_dict)
        _check_parameters(exported)
        flat = exported.module(check_guards=False)
        bags, pooled, stayed = torch_bags.cut(flat)
        names = _named_outputs(flat.graph, outputs)
        known = dict(zip(inputs, leaves, strict=True)) | pooled
        rest, used = _rest(flat)
        examples = tuple(known[each] for each in used)
        with _told(name, "torch.onnx.export"):
            program = torch.onnx.export(
                rest, examples, dynamo=True, verbose=False, input_names=used, output_names=names
            )  # fmt: skip
    if program is None:
        raise TorchError(f"{name}: torch.onnx.export gave no program")
    return TorchModel(program.model_proto, tuple(bags), tuple(stayed), inputs, tuple(names))


def _of_numpy(values: Mapping[str, object]) -> None:
    """Refuses arguments and parameters of a type that numpy does not have."""
    for name, value in values.items():
        if isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16:
            raise TorchError(
                f"{name}: is torch.bfloat16, must be torch.float32; call .float() on module and "
                "arguments"
            )


def _check_parameters(exported: torch.export.ExportedProgram) -> None:
    """Here they have their names, of which torch.onnx folds some away; buffers may be masks."""
    parameters = exported.graph_signature.inputs_to_parameters
    for node in exported.graph.find_nodes(op="placeholder"):
        if node.name in parameters and node.users:
            name = parameters[node.name]
            check_array(name, exported.state_dict[name].detach().cpu().numpy())


def _named_outputs(graph: torch.fx.Graph, wanted: Sequence[str] | None) -> list[str]:
    """The names of the outputs, all of which must be tensors."""
    made = graph.output_node().args[0]
    leaves = pytree.tree_leaves(made, is_leaf=lambda each: each is None)
    for place, leaf in enumerate(leaves):
        if not isinstance(leaf, torch.fx.Node):
            raise TorchError(f"output {place}: is {leaf!r}, must be a tensor")
    if wanted is None:
        several = [f"output_{place}" for place in range(len(leaves))]
        return several if len(leaves) != 1 else ["output"]
    if len(wanted) != len(leaves):
        raise TorchError(f"outputs: has {len(wanted)} names, the module has {len(leaves)} outputs")
    return list(wanted)


def _rules(graph: torch.fx.Graph) -> dict:
    """How to decompose an LSTM that projects its state, as ONNX's does not; empty without one."""
    for node in graph.find_nodes(op="call_function", target=_LSTM):
        given = torch_bags.operands(node)
        matrices = given["num_layers"] * (2 if given["bidirectional"] else 1) * 2
        plain = matrices * (2 if given["has_biases"] else 1)
        if len(given["params"]) > plain:
            return torch._decomp.get_decompositions([_LSTM])
    return {}


def _changes(graph: torch.fx.Graph) -> bool:
    """Whether a node changes a tensor in place."""
    schemas = (getattr(node.target, "_schema", None) for node in graph.nodes)
    return any(schema is not None and schema.is_mutable for schema in schemas)


def _stateless(name: str, signature: torch.export.ExportGraphSignature) -> None:
    written = [*signature.buffers_to_mutate.values(), *signature.user_inputs_to_mutate.values()]
    if written:
        raise TorchError(f"{name}: writes {written[0]}; requests keep no state, return it instead")


def _rest(flat: torch.fx.GraphModule) -> tuple[torch.fx.GraphModule, list[str]]:
    """What is left, as a module of plain positional arguments; which of them it uses."""
    graph = flat.graph
    graph.set_codegen(torch.fx.graph.CodeGen())
    for node in reversed(graph.nodes):
        if "_assert_" in str(node.target):
            graph.erase_node(node)  # of shapes and dtypes, which are fixed
    graph.eliminate_dead_code()
    for node in graph.find_nodes(op="placeholder"):
        if not node.users:
            graph.erase_node(node)
    rest = torch.fx.GraphModule(flat, graph)
    rest.training = False
    return rest, [str(node.target) for node in graph.find_nodes(op="placeholder")]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what PyTorch warns itself of, and says of packages that are not installed."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export")]
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", ".*_flat_weights", UserWarning)  # of its own LSTM
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)  # they also log what they raise
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def _told(name: str, step: str) -> Iterator[None]:
    """Puts the module's and the step's name before what PyTorch says of a failure.

    Of a failure of torch.onnx the cause says what it is, the rest how to report it.
    """
    try:
        yield
    except Exception as error:
        cause: BaseException = error
        while isinstance(cause, torch.onnx.OnnxExporterError) and cause.__cause__:
            cause = cause.__cause__
        text = str(cause).strip() or type(cause).__name__
        raise TorchError(f"{name}: {step} failed: {text}") from error
