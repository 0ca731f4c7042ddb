"""Models in shards: each process keeps some rows of every parameter, reads no others from the files, and FSDP2 does the rest.

transformers reads a parameter that is a DTensor slice by slice, and sees to tied weights, renamed keys and buffers. Its
hook between making an empty model and filling it makes DTensors of the parameters, sharded by rows as FSDP2 does it.
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
"""A module, the name of a parameter in it, and the parameter."""


def load_rows(name: str, mesh: DeviceMesh, **options: Any) -> Any:
    """Return what ``from_pretrained`` returns, the parameters being DTensors that hold this process's rows.

    Where the rows of a parameter are not the same rows in the files, the model is loaded whole, with a warning.
    """
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(name))
    kind = type(empty)
    if not all(map(_keeps_rows, get_model_conversion_mapping(empty))):
        warnings.warn(
            f"every process loads the whole of '{name}': its files hold other parts than a {kind.__name__} has",
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
    """Shard parameters, gradients and optimizer states with FSDP2: float32 shards, computed with in ``dtype``.

    Parameters that are rows already stay these: FSDP2 shards blanks, whose places they then take.

    The whole is resharded after its forward pass too, as its parts are: after an evaluation there is no backward pass
    that would do it, and optimizer and checkpoints must see the shards.
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
    """Return a class like a class of models, which makes DTensors of an empty model's parameters before it fills them."""

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
    """Whether every process has a row of a parameter; transformers cannot stack no experts at all."""
    each = -(-len(parameter) // size)
    return each * (size - 1) < len(parameter)


def _keeps_rows(conversion: object) -> bool:
    """Whether the rows of a parameter are made of the same rows of the tensors in the files.

    They are where keys are renamed and where experts are stacked; where parts are joined or split along rows, they are not.
    """
    return not isinstance(conversion, WeightConverter) or all(
        (isinstance(step, MergeModulelist) and step.dim == 0) or (isinstance(step, Concatenate) and step.dim > 0)
        for step in conversion.operations
    )


def _list_places(module: nn.Module) -> list[Place]:
    """Return every place of every parameter; one that is shared has several."""
    return [
        (owner, name, parameter)
        for owner in module.modules()
        for name, parameter in owner.named_parameters(recurse=False)
    ]


def _make_blank(parameter: nn.Parameter) -> nn.Parameter:
    blank = torch.empty(parameter.shape, dtype=parameter.dtype, device="meta")
    return nn.Parameter(blank, requires_grad=parameter.requires_grad)
