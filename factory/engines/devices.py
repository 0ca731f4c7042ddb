"""Which GPUs a child process sees."""

import os


def visible_devices(devices: tuple[int, ...]) -> dict[str, str]:
    """Return the environment that shows a child only these GPUs, numbered among those of this process; none: all."""
    if not devices:
        return {}
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return {"CUDA_VISIBLE_DEVICES": ",".join(visible[device] if visible else str(device) for device in devices)}
