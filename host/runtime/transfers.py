"""How a batch travels between host and cards: each trick by itself on or off."""

from dataclasses import dataclass, replace

import numpy as np

from halfdome.host.models.features import Batch


@dataclass(frozen=True)
class Transfers:
    """What saves bytes or packets. Only `half_inputs` changes answers.

    Attributes
    ----------
    partial_tensors : of index buffers, which are as large as the largest batch needs, only what a
        batch uses travels
    narrow_indices : indices and lengths travel as int32, not int64
    half_inputs : dense features travel as float16, see `seen`
    command_lists : one doorbell for all the commands that a card is given at a time, not one each
    fused : one transfer for the indices of all tables of a card, and one for their pooled rows to
        each peer, not one for each table
    broadcast : what every card needs alike, the dense nets, is read by one card and passed on from
        card to card, not read by each
    peer_pooling : pooled rows go from card to card, not through host memory
    """

    partial_tensors: bool = True
    narrow_indices: bool = True
    half_inputs: bool = False
    command_lists: bool = True
    fused: bool = True
    broadcast: bool = True
    peer_pooling: bool = True

    def seen(self, batch: Batch) -> Batch:
        """A batch as the cards see it: with `half_inputs` its dense features are rounded."""
        if not self.half_inputs:
            return batch
        return replace(batch, dense=batch.dense.astype(np.float16).astype(np.float32))
