"""Graphs of known shapes with random weights: recommenders, and blocks of residual networks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from halfdome.hdl.commands import ElementFormat, Function, RowFormat
from halfdome.host.graph.fused_rows import fuse_8bit
from halfdome.host.graph.graph import Graph, Node
from halfdome.host.graph.values import Value

BATCH = 64
"""Samples of a request of a recommender."""
TABLE_ROWS = 4096
"""Rows of a table: far more than DRAM keeps open, few enough to be brought over a link."""

Request = Mapping[str, np.ndarray]
_U8 = ElementFormat.UINT8


@dataclass(frozen=True)
class Recommender:
    """Embedding bags of `lookups` rows each beside a bottom net, joined before a top net.

    Rows are of 8 bits with scale and bias in float32. Sizes of nets begin with what they are made
    of; the top net is made of all that is joined.
    """

    bottom: tuple[int, ...]
    top: tuple[int, ...]
    tables: int
    dim: int
    lookups: int


RECOMMENDERS = {
    "RM1": Recommender((128, 64, 32), (256, 64, 1), 8, 32, 80),
    "RM2": Recommender((256, 128, 64), (128, 64, 1), 32, 64, 120),
    "RM3": Recommender((2560, 1024, 256, 32), (512, 256, 1), 10, 32, 20),
}
"""RMC1 to RMC3 (harvard-acc/DeepRecSys, models/configs), tables aside."""


@dataclass(frozen=True)
class Bottleneck:
    """Blocks of a stage: 1 x 1 to `inner` channels, 3 x 3 in groups, 1 x 1 back, and the sum."""

    image: int
    channels: int
    inner: int
    groups: int = 1


BLOCKS = {
    **{
        f"resnet50 stage {stage + 2}": Bottleneck(56 >> stage, 256 << stage, 64 << stage)
        for stage in range(4)
    },
    **{
        f"resnext50 stage {stage + 2}": Bottleneck(56 >> stage, 256 << stage, 128 << stage, 32)
        for stage in range(4)
    },
}
"""He et al., "Deep residual learning", 2016; Xie et al., "Aggregated residual transformations",
2017: 32 groups."""


class _Maker:
    """Nodes and constants of a graph."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Node] = []
        self.constants: dict[str, np.ndarray] = {}

    def add(self, op: str, inputs: tuple[str, ...], output: str, **attributes: object) -> str:
        self.nodes.append(Node(op, inputs, output, attributes))
        return output

    def product(self, op: str, x: str, output: str, shape: tuple[int, ...], **how: object) -> str:
        """A product with weights of this shape whose sums fill about 8 bits."""
        weight = self.rng.integers(-9, 10, shape).astype(np.int8)
        spread = 400.0 * np.sqrt(np.prod(shape[1:]))
        params = {"w": weight, "b": np.zeros(shape[0], np.int32),
                  "m": np.full(shape[0], 40 / spread, np.float32)}  # fmt: skip
        names = [f"{output} {name}" for name in params]
        self.constants |= dict(zip(names, params.values(), strict=True))
        return self.add(op, (x, *names), output, zero_point=128, **how)

    def net(self, x: str, sizes: tuple[int, ...], name: str) -> str:
        """Layers of these sizes, the first being that of x."""
        for layer, (k, n) in enumerate(pairwise(sizes)):
            x = self.product("linear", x, f"{name} {layer}", (n, k))
        return x


def recommender(
    shape: Recommender, batch: int, rows: int, seed: int = 0
) -> tuple[Graph, Callable[[], Request]]:
    """A recommender with tables of `rows` rows, and what draws requests for it uniformly."""
    made = _Maker(seed)
    rng, bags = made.rng, [f"table {number}" for number in range(shape.tables)]
    dense = Value("dense", (batch, shape.bottom[0]), ElementFormat.FLOAT32)
    inputs = [dense]
    x = made.add("affine", ("dense",), "x", multiplier=30.0, zero_point=128, format=_U8)
    joined = [made.net(x, shape.bottom, "bottom")]
    for name in bags:
        table = rng.normal(size=(rows, shape.dim)).astype(np.float32)
        made.constants[name] = fuse_8bit(table)
        inputs += [
            Value(f"{name} indices", (batch * shape.lookups,), ElementFormat.INT32, ragged=True),
            Value(f"{name} lengths", (batch,), ElementFormat.INT32),
        ]
        joined.append(made.add(
            "embedding_bag", (name, f"{name} indices", f"{name} lengths"), f"{name} pooled",
            row_format=RowFormat.INT8, format=_U8, multiplier=4.0, zero_point=128,
            mean_length=float(shape.lookups),
        ))  # fmt: skip
    width = shape.bottom[-1] + shape.tables * shape.dim
    made.add("concat", tuple(joined), "joined")
    logit = made.net("joined", (width, *shape.top), "top")
    made.add("affine", (logit,), "score", scale=0.05, function=Function.SIGMOID)
    graph = Graph(inputs, ["score"], made.nodes, made.constants)

    def request() -> Request:
        drawn = {"dense": rng.normal(size=dense.shape).astype(np.float32)}
        for name in bags:
            drawn[f"{name} indices"] = rng.integers(0, rows, batch * shape.lookups, np.int32)
            drawn[f"{name} lengths"] = np.full(batch, shape.lookups, np.int32)
        return drawn

    return graph, request


def bottlenecks(
    shape: Bottleneck, images: int = 1, seed: int = 0
) -> tuple[Graph, Callable[[], Request]]:
    """Two blocks of a stage, and what draws images for them."""
    made = _Maker(seed)
    size, inner = shape.channels, shape.inner
    x = Value("x", (images, shape.image, shape.image, size), _U8, zero_point=128)
    name = "x"
    for block in range(2):
        narrow = made.product("conv2d", name, f"{block} narrow", (inner, 1, 1, size), relu=True)
        seen = made.product(
            "conv2d", narrow, f"{block} seen", (inner, 3, 3, inner // shape.groups), relu=True,
            pads=(1, 1, 1, 1), groups=shape.groups,
        )  # fmt: skip
        wide = made.product("conv2d", seen, f"{block} wide", (size, 1, 1, inner))
        name = made.add(
            "add_quantised", (name, wide), f"{block} sum", a_ratio=0.7, b_ratio=0.6, offset=-38.0
        )
    graph = Graph([x], [name], made.nodes, made.constants)

    def request() -> Request:
        return {"x": made.rng.integers(0, 256, x.shape).astype(np.uint8)}

    return graph, request


def named(name: str, requests: int) -> tuple[Graph, list[Request]]:
    """One of `RECOMMENDERS` or `BLOCKS`, and so many requests for it."""
    if name in RECOMMENDERS:
        graph, draw = recommender(RECOMMENDERS[name], BATCH, TABLE_ROWS)
    else:
        graph, draw = bottlenecks(BLOCKS[name])
    return graph, [draw() for _ in range(requests)]
