"""How a request travels between host and cards: each trick by itself on or off."""

from dataclasses import dataclass, fields

from halfdome.host import arguments


@dataclass(frozen=True)
class Transfers:
    """What saves bytes or packets. Only `half_inputs` changes answers.

    Attributes
    ----------
    partial_tensors : of index buffers, which have room for the longest bags, only what a request
        uses travels
    narrow_indices : indices and lengths travel as int32, not int64
    half_inputs : float32 inputs travel as float16, but for those that are joined or put out
    command_lists : one doorbell for all the commands that a card is given at a time, not one each
    fused : one transfer for the indices of all tables of a card, and one for their pooled rows to
        each peer, not one for each table
    broadcast : what every card needs alike is read by one card and passed on from card to card,
        not read by each
    peer_pooling : pooled rows go from card to card, not through host memory
    """

    partial_tensors: bool = True
    narrow_indices: bool = True
    half_inputs: bool = False
    command_lists: bool = True
    fused: bool = True
    broadcast: bool = True
    peer_pooling: bool = True

    def __post_init__(self) -> None:
        for field in fields(self):
            arguments.flag(field.name, getattr(self, field.name))
