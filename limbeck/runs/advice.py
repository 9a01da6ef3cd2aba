"""What would bring the time and the memory of a planned run down, of the keys that its method reads."""

from collections.abc import Mapping

from limbeck.runs.settings import value_of
from limbeck.runs.unread import idle_keys
from limbeck.runs.workspace import Workspace
from limbeck.runtime.devices import fast_bf16
from limbeck.runtime.memory import free_memory, total_memory


def advice_on(workspace: Workspace, parts: Mapping[str, float], compiled: bool, peak: int) -> list[str]:
    """What would bring time and memory down."""
    settings, total, advice = workspace.settings, sum(parts.values()), []
    if not compiled and settings.engine.compile != "no" and parts["iterations"] > 120:
        advice.append("engine.compile=yes would make an iteration faster, once the compilation of about half a minute is done")
    if settings.engine.precision == "fp32" and parts["iterations"] > 0.5 * total and fast_bf16(workspace.device):
        advice.append(
            "engine.precision=bf16 would take about two thirds of the time of an iteration; docs/performance.md has its error"
        )
    if parts["evaluations"] > 0.3 * total:
        share = 100 * parts["evaluations"] / total
        advice.append(f"evaluations take {share:.0f} % of the time: raise eval.every ({settings.eval.every}) or lower eval.epochs")
    free = free_memory(workspace.device)
    if peak > 0.8 * min(free + peak, total_memory(workspace.device)):
        advice += [f"memory is short: {way}" for way in [less_memory(workspace)] if way]
    return advice


def less_memory(workspace: Workspace) -> str:
    """What would take less of it, of the keys that the method reads; empty where there is none."""
    settings, method = workspace.settings, workspace.method
    if method.steps and settings.engine.kind == "unroll":
        return "engine.kind=exact takes that of one step for the same gradient"
    if method.steps:
        auto = settings.engine.memory == "auto"
        return f"{'set engine.memory, such as engine.memory=2GiB,' if auto else 'lower engine.memory'} or lower match.batch_syn"
    read = (key for key in ("real.batch", "sre2l.batch_size") if not idle_keys(settings, [key]))
    return next((f"lower {key} ({value_of(settings, key)})" for key in read), "")
