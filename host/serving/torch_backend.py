"""`torch.compile(module, backend="halfdome")`: what PyTorch captures is answered by cards.

PyTorch finds the backend by the entry point group `torch_dynamo_backends`.
"""

import operator
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from halfdome.host.frontend.errors import TorchError
from halfdome.host.frontend.torch_export import from_torch, torch
from halfdome.host.platform import check_options

fx = torch.fx
_OPTIONS = {"cards", "config", "engine", "say"}
"""Options of a session beside those of its platform; what it calibrates by comes from the call."""


def halfdome(
    module: fx.GraphModule,
    examples: Sequence[object],
    *,
    options: Mapping[str, object] | None = None,
) -> Callable[..., tuple]:
    """The backend: a function of the arguments of `module`, a graph that PyTorch has captured.

    A session is opened for each set of shapes when it is first called with them, calibrated by the
    inputs of that call; bags may be of any length. Parameters and buffers are read then; what they
    become later has no effect. `options` are those of `InferenceSession`, `cards` and others.

    Raises `TorchError` where gradients are asked for, and `ValueError` for an unknown option.
    """
    given = dict(options or {})
    check_options({name: given[name] for name in given.keys() - _OPTIONS})
    static = [_is_static(each) for each in examples]
    if torch.is_grad_enabled() and any(
        isinstance(each, torch.Tensor) and each.requires_grad for each in examples
    ):
        raise TorchError(
            "module: its gradients are asked for, and cards only infer; call it under "
            "torch.inference_mode()"
        )
    return _Compiled(module, static, given)


def _is_static(example: object) -> bool:
    """Whether an argument is a parameter or buffer of the user's module."""
    marked = getattr(example, "_dynamo_static_input_type", None) is not None
    return marked or isinstance(example, torch.nn.Parameter)


class _Compiled:
    """Answers calls of a captured graph by a session for each set of shapes."""

    def __init__(self, module: fx.GraphModule, static: Sequence[bool], options: dict[str, object]):
        self._module = module
        self._static = static
        self._options = options
        inputs = module.graph.find_nodes(op="placeholder")
        self._used = [bool(node.users) for node in inputs]
        # Of dynamic shapes PyTorch hands in floats as tensors, too.
        self._numbers = [all(user.target == "item" for user in node.users) for node in inputs]
        self._ragged: frozenset[int] = frozenset()
        self._answers: dict[tuple, Callable[[list[torch.Tensor]], tuple]] = {}

    def __call__(self, *arguments: Any) -> tuple:
        arguments = tuple(
            argument.item() if isinstance(argument, torch.Tensor) and number and used else argument
            for argument, number, used in zip(arguments, self._numbers, self._used, strict=True)
        )
        tensors = self._changing(arguments, torch.Tensor)
        answer = self._answers.get(self._key(arguments, tensors))
        if answer is None:
            answer = self._opened(arguments, tensors)
            self._answers[self._key(arguments, tensors)] = answer
        return answer(tensors)

    def _changing(self, arguments: Sequence[Any], kind: Any) -> list[Any]:
        """The arguments of a kind that are no parameters and that the graph uses."""
        return [
            argument
            for argument, static, used in zip(arguments, self._static, self._used, strict=True)
            if isinstance(argument, kind) and used and not static
        ]

    def _key(self, arguments: Sequence[Any], tensors: list[torch.Tensor]) -> tuple:
        """What a session is for: the sizes of all but bags, whose lengths differ."""
        shapes = [
            None if place in self._ragged else (tensor.shape, tensor.dtype)
            for place, tensor in enumerate(tensors)
        ]
        return (*shapes, *self._changing(arguments, int | float))

    def _opened(
        self, arguments: Sequence[Any], tensors: list[torch.Tensor]
    ) -> Callable[[list[torch.Tensor]], tuple]:
        from halfdome.host.serving.session import InferenceSession

        kept = [not static and used for static, used in zip(self._static, self._used, strict=True)]
        module, outputs = _frozen(self._module, arguments, kept)
        model = from_torch(module, tensors)
        self._ragged = frozenset(map(model.inputs.index, model.ragged))

        def inputs(tensors: list[torch.Tensor]) -> dict:
            named = model.named(tensors)
            return named if model.bags else model.rest_inputs(named)

        session = InferenceSession(model, calibration=[model.named(tensors)], **self._options)
        weakref.finalize(self, session.close)

        def answer(tensors: list[torch.Tensor]) -> tuple:
            made = iter(session.run(None, inputs(tensors)))
            return tuple(
                torch.from_numpy(next(made)) if isinstance(each, fx.Node) else each
                for each in outputs
            )

        return answer


def _frozen(
    module: fx.GraphModule, arguments: Sequence[Any], kept: Sequence[bool]
) -> tuple[fx.GraphModule, tuple]:
    """A captured graph of the tensors that are `kept`, and all that it returns.

    Its other arguments are constants in it. It returns only what it computes.
    """
    graph = fx.Graph()
    held: dict[str, Any] = {}
    made: dict[fx.Node, Any] = {}
    outputs: tuple = ()
    given = iter(zip(arguments, kept, strict=True))
    for node in module.graph.nodes:
        if node.op == "placeholder":
            argument, changes = next(given)
            if not isinstance(argument, torch.Tensor):
                made[node] = argument
            elif changes:
                made[node] = graph.placeholder(node.name)
            else:
                held[node.name] = argument.detach()
                made[node] = graph.get_attr(node.name)
        elif node.op == "output":
            outputs = tuple(fx.node.map_arg(node.args[0], made.__getitem__))
            graph.output(tuple(each for each in outputs if isinstance(each, fx.Node)))
        elif node.target == "item" and not isinstance(made[node.args[0]], fx.Node):
            made[node] = made[node.args[0]]
        else:
            if node.op in ("get_attr", "call_module"):
                held[node.target] = operator.attrgetter(node.target)(module)
            made[node] = graph.node_copy(node, made.__getitem__)
    frozen = fx.GraphModule(held, graph)
    return frozen.eval(), outputs
