"""The GPUs that a child process sees."""

import os


def visible_devices(devices: tuple[int, ...]) -> dict[str, str]:
    """Return environment variables that limit a child to these GPUs; empty: all that this process sees.

    The numbers refer to the GPUs that are visible to this process.
    """
    if not devices:
        return {}
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return {"CUDA_VISIBLE_DEVICES": ",".join(visible[device] if visible else str(device) for device in devices)}
