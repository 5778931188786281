"""The plan as a table, and what will not fit."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gemma4.memory_plan import GIB
from pipeline.calibrate import Rates
from pipeline.work import Work


@dataclass(frozen=True)
class Row:
    """One command of the plan.

    Attributes:
        command: its dotted name.
        amount: what it works on.
        flops: operations.
        device_bytes: memory of the device, if it has its own; else 0.
        host_bytes: memory of the host.
        disk_bytes: what it writes.
        hours: from its start to its end.
        device_hours: the same, for all devices that it uses; 0 if it uses none.
        num_devices: devices that share it.
        most_of: the part that takes most of the time.
        faults: why it cannot run at all.
    """

    command: str
    amount: str
    flops: float
    device_bytes: int
    host_bytes: int
    disk_bytes: int
    hours: float
    device_hours: float
    num_devices: int
    most_of: str
    faults: tuple[str, ...]


@dataclass(frozen=True)
class Limits:
    """What there is; None is not known, or not limited.

    Attributes:
        device_bytes: memory of the device, if it has its own.
        host_bytes: memory of the host.
        disk_bytes: free space.
        hours: for all commands together.
    """

    device_bytes: int | None
    host_bytes: int | None
    disk_bytes: int
    hours: float | None


def make_row(work: Work, rates: Rates, num_devices: int) -> Row:
    """A row of the table.

    Args:
        num_devices: devices that share what can be divided.
    """
    shared_by = min(num_devices, work.num_shards)
    hours = rates.seconds_of(work) / 3600 / shared_by
    memory = work.memory
    has_own = rates.device.type not in ("cpu", "mps")
    timed = {part.name: rates.seconds_of_part(part) for part in work.parts}
    return Row(
        command=work.command, amount=work.amount, flops=work.flops,
        device_bytes=memory.device if has_own else 0,
        host_bytes=memory.host + (0 if has_own else memory.device),
        disk_bytes=work.disk, hours=hours, num_devices=shared_by,
        device_hours=hours * shared_by if work.parts else 0.0,
        most_of=max(timed, key=lambda name: timed[name]) if timed else "recordings",
        faults=work.faults,
    )  # fmt: skip


def find_misfits(rows: Sequence[Row], limits: Limits) -> list[str]:
    """What will not fit, a line each."""
    misfits = [f"{row.command}: {fault}" for row in rows for fault in row.faults]
    for what, name, there in (
        ("of the device", "device_bytes", limits.device_bytes),
        ("of the host", "host_bytes", limits.host_bytes),
    ):
        for row in rows:
            needed = getattr(row, name)
            if there is not None and needed > there:
                misfits.append(
                    f"{row.command}: {needed / GIB:.1f} GiB of memory {what}, "
                    f"{there / GIB:.1f} there"
                )
    disk = sum(row.disk_bytes for row in rows)
    if disk > limits.disk_bytes:
        misfits.append(f"disk: {disk / 1e9:,.1f} GB, {limits.disk_bytes / 1e9:,.1f} free at --out")
    hours = sum(row.hours for row in rows)
    if limits.hours is not None and hours > limits.hours:
        misfits.append(f"time: {hours:,.1f} hours, --max-hours {limits.hours:g}")
    return misfits


def format_plan(rows: Sequence[Row], rates: Rates, limits: Limits, num_devices: int) -> str:
    """The table, how to read it, and what cannot be divided."""
    time = "hours*" if rates.is_measured else "hours~"
    header = (
        f"{'command':<32}{'FLOP':>9}{'device':>8}{'host~':>8}{'disk':>9}{time:>10}"
        f"{'device h':>10}\n"
        f"{'':<32}{'':>9}{'GiB~':>8}{'GiB':>8}{'GB':>9}"
    )
    lines = [header]
    for row in rows:
        device = f"{row.device_bytes / GIB:.1f}" if row.device_bytes else "-"
        lines += [
            f"{row.command:<32}{row.flops:>9.1e}{device:>8}{row.host_bytes / GIB:>8.1f}"
            f"{row.disk_bytes / 1e9:>9,.2f}{_show(row.hours):>10}{_show(row.device_hours):>10}",
            f"    {row.amount}; mostly {row.most_of}",
        ]
    totals = [sum(getattr(row, name) for row in rows) for name in ("flops", "disk_bytes")]
    hours = [sum(getattr(row, name) for row in rows) for name in ("hours", "device_hours")]
    lines.append(
        f"{'all':<32}{totals[0]:>9.1e}{'':>16}{totals[1] / 1e9:>9,.2f}{_show(hours[0]):>10}"
        f"{_show(hours[1]):>10}"
    )
    lines.append(_legend(rates))
    if num_devices > 1:
        whole = [row.command for row in rows if row.num_devices == 1]
        lines.append(
            f"{num_devices} devices: --part shares what it can; on one: {', '.join(whole)}"
        )
    if limits.device_bytes is None and any(row.device_bytes for row in rows):
        lines.append("memory of the device is not known, and not compared: --device-gib")
    return "\n".join(lines)


def plan_as_dict(
    rows: Sequence[Row], rates: Rates, limits: Limits, misfits: Sequence[str]
) -> dict[str, Any]:
    """The plan, ready for JSON."""
    return {
        "rows": [asdict(row) for row in rows],
        "device": str(rates.device),
        "rates_are_measured": rates.is_measured,
        "measured_in_s": rates.took_s,
        "flops_per_s": rates.flops_per_s or {"assumed": rates.default_flops_per_s},
        "audio_x_real_time": rates.audio_x,
        "disk_bytes_per_s": rates.disk_bytes_per_s,
        "there": asdict(limits),
        "hours": sum(row.hours for row in rows),
        "device_hours": sum(row.device_hours for row in rows),
        "disk_bytes": sum(row.disk_bytes for row in rows),
        "will_not_fit": list(misfits),
    }


def _show(hours: float) -> str:
    """Hours with three digits, or more where they are many."""
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"


def _legend(rates: Rates) -> str:
    counted = "FLOP and disk are counted from shapes and lengths; memory (~) is counted where it is"
    counted += " weights, and estimated beyond."
    if rates.is_measured:
        return (
            f"* from rates measured on {rates.device} in {rates.took_s:.0f} s, on a little of each "
            f"kind of work. {counted}"
        )
    return (
        f"~ hours are estimated: {rates.default_flops_per_s / 1e12:.4g} TFLOP/s in use, "
        f"{rates.float32_flops_per_s / 1e12:.3g} in float32; nothing was measured. {counted}"
    )
