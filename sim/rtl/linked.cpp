// The linked model with a C interface, for ctypes.
#include "linked.hpp"

using halfdome::CardModel;
using halfdome::Linked;
using halfdome::Wire;
using halfdome::Wires;

#pragma GCC visibility push(default)
extern "C" {

Linked* linked_create(const CardModel* shell) { return new Linked(*shell); }

void linked_destroy(Linked* linked) { delete linked; }

void linked_add(Linked* linked, const CardModel* unit, const Wire* inputs, size_t input_count,
                const Wire* outputs, size_t output_count) {
  linked->add(*unit, Wires(inputs, input_count), Wires(outputs, output_count));
}

// 0, or 1 if the parts do not settle.
int linked_settle(Linked* linked) { return !linked->settle(); }
int linked_settled(const Linked* linked) { return linked->settled(); }
void linked_edge(Linked* linked) { linked->edge(); }
void linked_remember(Linked* linked) { linked->remember(); }
int linked_repeated(Linked* linked) { return linked->repeated(); }
void linked_advance(Linked* linked, int64_t periods) { linked->advance(periods); }

void linked_run(Linked* linked, int64_t cycles) {
  for (; cycles > 0 && linked->settle(); --cycles) linked->edge();
}

}  // extern "C"
#pragma GCC visibility pop
