"""Networks of any shape: convolutions, products and what moves between them, drawn at random."""

import numpy as np

from halfdome.hdl.commands import ElementFormat
from halfdome.host.graph.graph import Graph, Node
from halfdome.host.graph.values import Value

BYTES = (ElementFormat.UINT8, ElementFormat.INT8)


def residual(image, channels, blocks, kernel=1, images=1):
    """Convolutions of images, each of which is added to what it is made of."""
    rng = np.random.default_rng(0)
    constants, nodes, x = {}, [], "x"
    for block in range(blocks):
        constants[f"w{block}"] = rng.integers(-9, 9, (channels, kernel, kernel, channels)).astype(
            np.int8
        )
        inputs = (x, f"w{block}", "b", "m")
        how = {"zero_point": 128, "pads": (kernel // 2,) * 4}
        nodes.append(Node("conv2d", inputs, f"c{block}", how))
        scales = {"a_ratio": 0.7, "b_ratio": 0.6, "offset": 3.0}
        nodes.append(Node("add_quantised", (x, f"c{block}"), f"y{block}", scales))
        x = f"y{block}"
    params = {"b": np.zeros(channels, np.int32), "m": np.full(channels, 1e-3, np.float32)}
    value = Value("x", (images, image, image, channels), ElementFormat.UINT8, zero_point=128)
    return Graph([value], [x], nodes, constants | params)


def convolution(image, k, n, groups=1):
    """Windows of 3 × 3 pixels, all of the image's."""
    weight = np.full((n, 3, 3, k // groups), 2, np.int8)
    params = {"b": np.zeros(n, np.int32), "m": np.full(n, 1e-3, np.float32)}
    node = Node("conv2d", ("x", "w", "b", "m"), "y", {"pads": (1, 1, 1, 1), "groups": groups})
    value = Value("x", (1, image, image, k), ElementFormat.UINT8)
    return Graph([value], ["y"], [node], {"w": weight} | params)


class Network:
    """A graph of images, vectors and sequences.

    Attributes
    ----------
    graph : Graph
    """

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.batch = self.integer(1, 3)
        self._nodes, self._constants = [], {}
        shape = (self.batch, *self.choice([
            (self.integer(1, 9), self.integer(1, 9), self.integer(1, 20)),
            (self.integer(1, 9), self.integer(1, 40)),
            (self.integer(1, 3), self.integer(1, 6), self.integer(1, 20)),
            (self.integer(1, 40),),
        ]))  # fmt: skip
        first = self._value("x", shape)
        self._live = [first]
        for _ in range(self.integer(1, 6)):
            self._step()
        made = [node.output for node in self._nodes]
        read = {name for node in self._nodes for name in node.inputs}
        outputs = [name for name in made if name not in read or self.maybe(0.1)]
        self.graph = Graph([first], outputs or [first.name], self._nodes, self._constants)

    def integer(self, low, high):
        return int(self.rng.integers(low, high + 1))

    def choice(self, options):
        return options[self.integer(0, len(options) - 1)]

    def maybe(self, chance):
        return self.rng.random() < chance

    def request(self):
        value = self.graph.inputs[0]
        limits = np.iinfo(value.dtype)
        size = (self.integer(1, self.batch), *value.shape[1:])
        return {"x": self.rng.integers(limits.min, limits.max + 1, size).astype(value.dtype)}

    def _value(self, name, shape):
        kind = self.choice(BYTES)
        low = 0 if kind is ElementFormat.UINT8 else -128
        return Value(name, shape, kind, zero_point=self.integer(low, low + 255))

    def _output(self, wide=False):
        kind = self.choice((*BYTES, ElementFormat.INT32) if wide else BYTES)
        low = 0 if kind is ElementFormat.UINT8 else -128
        zero_point = 0 if kind is ElementFormat.INT32 else self.integer(low, low + 255)
        return {"format": kind, "zero_point": zero_point}

    def _add(self, op, inputs, **attributes):
        name = f"v{len(self._nodes)}"
        self._nodes.append(Node(op, tuple(inputs), name, attributes))
        # Shapes and formats as a graph infers them.
        values = Graph([self._live[0]], [name], self._nodes, self._constants).values
        self._live.append(values[name])
        return values[name]

    def _constant(self, array):
        name = f"c{len(self._constants)}"
        self._constants[name] = array
        return name

    def _weights(self, *shape):
        dtype = self.choice((np.int8, np.uint8))
        limits = np.iinfo(dtype)
        zero_point = self.choice((0, self.integer(limits.min, limits.max)))
        weight = self.rng.integers(limits.min, limits.max + 1, shape).astype(dtype)
        return self._constant(weight), zero_point

    def _params(self, n, output):
        if output["format"] is ElementFormat.INT32:
            return []
        bias = self.rng.integers(-1000, 1000, n).astype(np.int32)
        multiplier = (self.rng.random(n) * 0.01 + 1e-5).astype(np.float32)
        return [self._constant(bias), self._constant(multiplier)]

    def _step(self):
        x = self.choice([v for v in self._live if v.format.nbytes == 1])
        options = [self._linear, self._reshape]
        options += [self._add_quantised, self._multiply, self._concat, self._lookup]
        if len(x.shape) >= 4:
            options += [*3 * [self._conv2d], self._max_pool, self._average_pool]
        if len(x.shape) >= 3:
            options += [self._transpose, self._batch_matmul]
        self.choice(options)(x)

    def _linear(self, x):
        n, output = self.integer(1, 40), self._output(wide=True)
        weight, zero_point = self._weights(n, x.shape[-1])
        relu = output["format"] is not ElementFormat.INT32 and self.maybe(0.3)
        params = self._params(n, output)
        self._add("linear", [x.name, weight, *params], weight_zero_point=zero_point, relu=relu,
                  **output)  # fmt: skip

    def _conv2d(self, x):
        channels = x.shape[-1]
        groups = self.choice([g for g in range(1, channels + 1) if channels % g == 0])
        n, output = groups * self.integer(1, 3), self._output(wide=True)
        if self.maybe(0.3):  # each channel by itself
            n = groups = channels
        kernel = [self.integer(1, 3) for _ in range(2)]
        dilation = [self.integer(1, 2) for _ in range(2)]
        stride = [self.integer(1, 3) for _ in range(2)]
        pads = [self.integer(0, 2) for _ in range(4)]
        for axis in (0, 1):
            reach = dilation[axis] * (kernel[axis] - 1) + 1
            if x.shape[axis - 3] + pads[axis] + pads[axis + 2] < reach:
                kernel[axis] = 1
        weight, zero_point = self._weights(n, *kernel, channels // groups)
        if self.maybe(0.1):
            ones = np.ones((n, *kernel, channels // groups), np.int8)
            weight, zero_point = self._constant(ones), 0
        params = self._params(n, output)
        self._add("conv2d", [x.name, weight, *params], weight_zero_point=zero_point, stride=stride,
                  pads=pads, dilation=dilation, groups=groups, **output)  # fmt: skip

    def _max_pool(self, x):
        kernel, stride, dilation, pads = [], [], [], [0] * 4
        for axis in (0, 1):
            size, taps, spread = x.shape[axis - 3], self.integer(1, 3), self.integer(1, 2)
            reach = spread * (taps - 1)
            if size <= reach:
                taps = spread = 1
                reach = 0
            kernel.append(taps)
            stride.append(self.integer(1, 3))
            dilation.append(spread)
            pads[axis], pads[axis + 2] = self.integer(0, reach), self.integer(0, reach)
        self._add("max_pool", [x.name], kernel=kernel, stride=stride, dilation=dilation, pads=pads)

    def _average_pool(self, x):
        kernel = [self.integer(1, min(3, size)) for size in x.shape[-3:-1]]
        pads = [self.integer(0, kernel[side % 2] - 1) for side in range(4)]
        scales = self.rng.random(2) + 0.01
        self._add("average_pool", [x.name], kernel=kernel, pads=pads, x_scale=scales[0],
                  stride=[self.integer(1, 3) for _ in range(2)], y_scale=scales[1],
                  include_pads=self.maybe(0.5), **self._output())  # fmt: skip

    def _like(self, x):
        return self.choice([v for v in self._live if v.shape == x.shape and v.format.nbytes == 1])

    def _add_quantised(self, x):
        # Some are beyond what a command of bytes takes.
        ratios = (self.rng.random(2) + 0.01) * self.choice((1, 1, 1, 1e-5, 1e3))
        other = self._like(x).name
        if self.maybe(0.3):
            row = self.rng.integers(0, 256, x.shape[-1]).astype(np.uint8)
            other = self._constant(row)
        self._add("add_quantised", [x.name, other], a_ratio=ratios[0],
                  b_ratio=ratios[1], offset=float(self.rng.normal() * 10),
                  inner=self.choice(("a", "b")), **self._output())  # fmt: skip

    def _multiply(self, x):
        other = self._like(x).name
        op = self.choice(("multiply", "multiply_quantised"))
        if self.maybe(0.3):
            row = self.rng.integers(-128, 128, x.shape[-1])
            row = row * self.choice((1, 1, 0.5))
            other = self._constant(row.astype(self.choice((np.int8, np.float32))))
        elif self.maybe(0.3):
            weight, zero_point = self._weights(1, x.shape[-1])
            output = self._output()
            other = self._add("linear", [x.name, weight, *self._params(1, output)],
                              weight_zero_point=zero_point, **output).name  # fmt: skip
        op = self.choice(("multiply", "multiply_quantised"))
        self._add(op, [x.name, other], multiplier=float(self.rng.random() * 0.01 + 1e-4),
                  **self._output())  # fmt: skip

    def _lookup(self, x):
        output = self._output()
        table = self.rng.integers(0, 256, 256, np.uint8)
        if output["format"] is ElementFormat.INT8:
            table = table.view(np.int8)
        self._add("lookup", [x.name, self._constant(table)], **output)

    def _concat(self, x):
        others = [
            v for v in self._live
            if (v.shape[:-1], v.format, v.zero_point) == (x.shape[:-1], x.format, x.zero_point)
        ]  # fmt: skip
        self._add("concat", [self.choice(others).name for _ in range(self.integer(1, 3))])

    def _reshape(self, x):
        size = int(np.prod(x.shape[1:]))
        shape = []
        while size > 1 and len(shape) < 3 and self.maybe(0.7):
            part = self.choice([d for d in range(1, size + 1) if size % d == 0])
            shape.append(part)
            size //= part
        self._add("reshape", [x.name], shape=(*shape, size))

    def _transpose(self, x):
        self._add("transpose", [x.name])

    def _batch_matmul(self, x):
        transposed = self.maybe(0.5)

        def fits(v):
            pairs = zip(v.shape[1:-2], x.shape[1:-2], strict=False)
            return (
                v.format.nbytes == 1
                and len(v.shape) == len(x.shape)
                and v.shape[-1 if transposed else -2] == x.shape[-1]
                and all(a == b or 1 in (a, b) for a, b in pairs)
            )

        others = [v for v in self._live if fits(v)]
        if not others:
            return self._linear(x)
        self._add("batch_matmul", [x.name, self.choice(others).name], transposed=transposed,
                  multiplier=float(self.rng.random() * 0.01 + 1e-4),
                  **self._output(wide=True))  # fmt: skip
        return None
