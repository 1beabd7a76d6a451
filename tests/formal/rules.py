"""What is assumed of the world and asserted of components: rules that many ports share."""

from amaranth.hdl import Assert, Assume, Module, Mux, Signal, Value

from halfdome.hdl.pcie.tlp import RequestHeader


def obey_stream_rules(spec, name: str, stream, kind: type[Assert] | type[Assume]) -> None:
    """A payload that is refused stays offered, unchanged.

    `kind` is `Assert` for a stream that the component produces, `Assume` for one it consumes.
    """
    m = Module()
    payload = Value.cast(stream.p)
    refused = Signal()
    kept = Signal(payload.shape())
    m.d.sync += [refused.eq(stream.valid & ~stream.ready), kept.eq(payload)]
    m.d.comb += kind(~refused | (stream.valid & (payload == kept)), src_loc_at=1)
    spec.m.submodules[f"{name}_rules"] = m


class Scoreboard:
    """What goes in comes out once, unchanged and in order, of a place that holds `capacity` items.

    One item, whichever, is watched: it comes out when all those before it have. Since any may be
    the one, all do.

    Parameters
    ----------
    put, put_value : an item goes in
    offered, take, take_value : an item is at the exit, and leaves

    Members
    -------
    level : items inside
    """

    def __init__(self, spec, name, capacity, *, put, put_value, take, take_value, offered=None):
        self._m = m = Module()
        spec.m.submodules[f"{name}_scoreboard"] = m
        watch = spec.free(f"{name}_watch")
        put_value, take_value = Value.cast(put_value), Value.cast(take_value)
        self.level, self._ahead = Signal(range(capacity + 1)), Signal(range(capacity + 1))
        self._watching, self._value = Signal(), Signal(put_value.shape())
        m.d.sync += self.level.eq(self.level + put - take)
        with m.If(self._watching & take):
            m.d.sync += self._ahead.eq(self._ahead - 1)
            with m.If(self._ahead == 0):
                m.d.sync += self._watching.eq(0)
        with m.If(~self._watching & put & watch):
            m.d.sync += [
                self._watching.eq(1),
                self._ahead.eq(self.level - take),
                self._value.eq(put_value),
            ]
        offered = take if offered is None else offered
        due = self._watching & (self._ahead == 0)
        m.d.comb += [
            # Nothing from nowhere, no more than there is room for, and what it was.
            Assert(~offered | (self.level != 0), src_loc_at=1),
            Assert(~(put & ~take) | (self.level != capacity), src_loc_at=1),
            Assert(~(offered & due) | (take_value == self._value), src_loc_at=1),
            Assert(~self._watching | (self._ahead < self.level), src_loc_at=1),
        ]

    def lies_in(self, *slots) -> None:
        """States where items are: pairs (occupied, value), the one at the exit first.

        For proofs by induction, which start in any state that this allows.
        """
        before = 0
        for occupied, value in slots:
            here = self._watching & occupied & (self._ahead == before)
            self._m.d.comb += Assert(~here | (Value.cast(value) == self._value), src_loc_at=1)
            before = before + occupied
        self._m.d.comb += Assert(self.level == before, src_loc_at=1)


def wait_in_turn(spec, name, n, *, requested, served, other, distance) -> None:
    """A request that stays up sees at most `n - 1` others served before itself.

    Parameters
    ----------
    requested, served, other : the request is up; it, or another one, is served in this cycle
    distance : requests that would be served before it if all were up
    """
    m = spec.m
    waited = Signal(range(n + 1), name=f"{name}_waited")
    with m.If(~requested | served):
        m.d.sync += waited.eq(0)
    with m.Elif(other):
        m.d.sync += waited.eq(waited + 1)
    m.d.comb += Assert(waited + distance <= n - 1, src_loc_at=1)


def fifo_is_sound(spec, path: str, depth: int) -> Signal:
    """States what holds in a `SyncFIFOBuffered` of two or more entries; its level.

    For proofs by induction: the FIFO itself is Amaranth's, which proves it.
    """
    level, write, read = (spec.inside(f"{path}.{n}") for n in ("inner_level", "produce", "consume"))
    inner = depth - 1
    spec.m.d.comb += [
        Assert(write < inner, src_loc_at=1),
        Assert(read < inner, src_loc_at=1),
        Assert(level <= inner, src_loc_at=1),
        Assert((read + level == write) | (read + level == write + inner), src_loc_at=1),
    ]
    return spec.inside(f"{path}.level")


def answer_reads(spec, name: str, port, most_words: int) -> Signal:
    """A memory behind a `ReadPort`: it answers words that were asked for, at any time, with any
    data; `last` comes with the last word of a burst.

    Returns the number of words it owes. More than `most_words` are more than there is room for.
    """
    m = Module()
    asked, due = Signal(range(most_words + 1)), Signal(range(most_words + 1))
    request, response = port.request, port.response
    count = request.p.count_minus_1 + 1
    m.d.comb += asked.eq(Mux(request.valid & request.ready, count, 0))
    m.d.sync += due.eq(due + asked - response.valid)
    m.d.comb += [
        Assume(~response.valid | (due != 0)),
        Assert(due + asked <= most_words, src_loc_at=1),
    ]
    spec.m.submodules[f"{name}_memory"] = m
    return due


def obey_packet_rules(spec, name: str, stream, kind: type[Assert] | type[Assume]) -> Value:
    """Packets as `PacketBuffer` passes them on: as many beats as their header says, or malformed.

    A malformed packet is its header alone. For beats of 16 bytes. Returns whether the next beat
    begins a packet.
    """
    m = Module()
    beat, header = stream.p, RequestHeader(stream.p.data)
    inside, left, payload = Signal(), Signal(9), Signal(9)
    dwords = Mux(header.length == 0, 1024, header.length)
    m.d.comb += payload.eq(Mux(Value.cast(header.type)[6], (dwords + 3) >> 2, 0))
    with m.If(stream.valid & stream.ready):
        m.d.sync += [inside.eq(~beat.last), left.eq(Mux(beat.first, payload, left - 1))]
    ends = Mux(beat.first, beat.malformed | (payload == 0), left == 1)
    m.d.comb += kind(
        ~stream.valid
        | ((beat.first == ~inside) & (beat.first | ~beat.malformed) & (beat.last == ends)),
        src_loc_at=1,
    )
    spec.m.submodules[f"{name}_packets"] = m
    return ~inside
