"""Sharded loading: each process reads only its own rows of every parameter from the files, then FSDP2 takes over.

If a parameter is a DTensor, transformers reads only its slice, and takes care of tied weights, renamed keys and
buffers. So a hook of ``from_pretrained``, called after the empty model is created and before it is filled, converts
parameters to DTensors that are sharded by rows, as FSDP2 does it.
"""

import warnings
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import Concatenate, MergeModulelist, WeightConverter
from transformers.distributed import DistributedConfig

Place = tuple[nn.Module, str, nn.Parameter]
"""A module, the name of one of its parameters, and the parameter."""


def load_rows(name: str, mesh: DeviceMesh, **options: Any) -> Any:
    """Return the same as ``from_pretrained``, but with DTensors as parameters, which hold this process's rows.

    If the files store parameters in a form whose rows differ from the model's, the whole model is loaded, with a
    warning.
    """
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(name))
    kind = type(empty)
    if not all(map(_keeps_rows, get_model_conversion_mapping(empty))):
        warnings.warn(
            f"every process loads all of '{name}', because its files store parameters in another form than "
            f"{kind.__name__}",
            stacklevel=2,
        )
        return AutoModelForCausalLM.from_pretrained(name, **options)
    model, found = _make_reader(kind, mesh).from_pretrained(
        name, config=empty.config, distributed_config=DistributedConfig(), **options
    )
    model.__class__ = kind
    del model.config.distributed_config
    return model, found


def shard(module: nn.Module, layers: list[nn.Module], dtype: torch.dtype, mesh: DeviceMesh) -> None:
    """Shard parameters, gradients and optimizer states with FSDP2: float32 shards, computation in ``dtype``.

    Parameters that are already sharded DTensors are replaced by empty ones, which FSDP2 shards, and then put back.

    The root is resharded after its forward pass too, which is not FSDP2's default: after an evaluation no backward pass
    follows that would reshard it, and optimizer and checkpoints must see shards.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    loaded = [place for place in _list_places(module) if isinstance(place[2], DTensor)]
    blanks = {rows: _make_blank(rows) for _, _, rows in loaded}
    for owner, name, rows in loaded:
        setattr(owner, name, blanks[rows])
    for layer in (*layers, module):
        fully_shard(layer, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    for owner, name, rows in loaded:
        setattr(owner, name, rows)


def _make_reader(kind: type, mesh: DeviceMesh) -> Any:
    """Return a subclass of a model class that converts the empty model's parameters to DTensors before loading."""

    def prepare(
        _kind: type, config: DistributedConfig, device_map: object = None
    ) -> tuple[DistributedConfig, object, None]:
        return config, device_map, None

    def distribute(_kind: type, model: nn.Module, _config: object, _meshes: None) -> nn.Module:
        for owner, name, parameter in _list_places(model):
            if _has_rows_for_all(parameter, mesh.size()):
                rows = distribute_tensor(parameter.detach(), mesh, [Shard(0)], src_data_rank=None)
                setattr(owner, name, nn.Parameter(rows, requires_grad=parameter.requires_grad))
        return model

    hooks = {"prepare_distribute_model": classmethod(prepare), "maybe_distribute_model": classmethod(distribute)}
    return type(kind.__name__, (kind,), {"__module__": kind.__module__, **hooks})


def _has_rows_for_all(parameter: nn.Parameter, size: int) -> bool:
    """Whether each process gets at least one row; transformers fails if a process has no experts to stack."""
    each = -(-len(parameter) // size)
    return each * (size - 1) < len(parameter)


def _keeps_rows(conversion: object) -> bool:
    """Whether a conversion makes each row of a parameter from the same row of the tensors in the files.

    Renaming keys and stacking experts do; joining or splitting tensors along rows does not.
    """
    return not isinstance(conversion, WeightConverter) or all(
        (isinstance(step, MergeModulelist) and step.dim == 0) or (isinstance(step, Concatenate) and step.dim > 0)
        for step in conversion.operations
    )


def _list_places(module: nn.Module) -> list[Place]:
    """Return every place of every parameter; a shared parameter has several."""
    return [
        (owner, name, parameter)
        for owner in module.modules()
        for name, parameter in owner.named_parameters(recurse=False)
    ]


def _make_blank(parameter: nn.Parameter) -> nn.Parameter:
    blank = torch.empty(parameter.shape, dtype=parameter.dtype, device="meta")
    return nn.Parameter(blank, requires_grad=parameter.requires_grad)
