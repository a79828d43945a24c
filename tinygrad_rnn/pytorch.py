"""What PyTorch's names are called here: an error about a name that is only PyTorch's says ours.

`docs/pytorch.md` tells more of each. Only what fails comes here; nothing is imported before that.
"""

from __future__ import annotations

import linecache
import traceback
from typing import Any

# Methods of tensors; `torch.clone(x)` is asked for as the function of the same name.
TENSOR = {
    "add_": "`x + y`: values never change, and a leaf takes new ones by `x.assign_(array)`",
    "amax": "`x.max(axis)`",
    "amin": "`x.min(axis)`",
    "argsort": "`x.numpy().argsort()`, of which no gradient would come either",
    "baddbmm": "`a + tr.matmul(x, y)`",
    "bmm": "`tr.matmul(x, y)`, or `x @ y`",
    "bool": '`x.astype("bool")`',
    "chunk": "`x.split(pieces, axis)`",
    "clamp": "`x.clip(min, max)`",
    "clone": "`x` itself, since values never change; `tr.Tensor(x.detach())` is a leaf of its own",
    "contiguous": "`x` itself: how an array lies in memory is of no matter here",
    "copy_": "`x.assign_(array)`, of a leaf",
    "cpu": '`x.to("cpu")`',
    "cuda": '`x.to("cuda")`',
    "dim": "`x.ndim`",
    "dot": "`x @ y`",
    "double": '`x.to("float64")`',
    "eq": "`x == y`",
    "expand": "`tr.broadcast_to(x, shape)`",
    "fill_": "`tr.full(shape, value)`, or `tr.nn.init.constant_(parameter, value)`",
    "float": '`x.to("float32")`',
    "gather": "`tr.take_along_axis(x, ids, axis)`",
    "ge": "`x >= y`",
    "gt": "`x > y`",
    "half": '`x.to("float16")`',
    "index_select": "`x.take(ids, axis)`",
    "int": '`x.astype("int32")`',
    "is_cuda": '`x.device != "cpu"`',
    "le": "`x <= y`",
    "long": '`x.astype("int64")`',
    "lt": "`x < y`",
    "masked_fill": "`tr.where(mask, value, x)`",
    "masked_fill_": "`tr.where(mask, value, x)`",
    "masked_select": "`x[mask]`",
    "mm": "`tr.matmul(x, y)`, or `x @ y`",
    "mul_": "`x * y`: values never change, and a leaf takes new ones by `x.assign_(array)`",
    "mv": "`x @ v`",
    "narrow": "`x[:, start : start + length]`",
    "ne": "`x != y`",
    "neg": "`-x`",
    "new_zeros": "`tr.zeros(*shape, dtype=x.dtype, device=x.device)`",
    "normal_": "`tr.nn.init.normal_(parameter)`",
    "numel": "`x.size`, without a call",
    "permute": "`x.transpose(axes)`",
    "pow": "`x ** n`",
    "repeat": "`tr.concatenate([x] * n, axis)`, or `tr.broadcast_to(x, shape)`",
    "repeat_interleave": "`x.take(ids, axis)` with each id as often as its row",
    "requires_grad_": "`x.requires_grad = True`, of a leaf",
    "select": "`x[:, i]`",
    "sub_": "`x - y`: values never change, and a leaf takes new ones by `x.assign_(array)`",
    "t": "`x.T`",
    "tile": "`tr.concatenate([x] * n, axis)`, or `tr.broadcast_to(x, shape)`",
    "topk": "`x.numpy().argsort()`, and `tr.take_along_axis(x, ids, axis)` where a gradient is to flow",
    "type": "`x.astype(dtype)`",
    "type_as": "`x.to(y.dtype)`",
    "unbind": "`list(x)`, which cuts along the first axis",
    "uniform_": "`tr.nn.init.uniform_(parameter, low, high)`",
    "unsqueeze": "`tr.expand_dims(x, axis)`",
    "view": "`x.reshape(shape)`",
    "view_as": "`x.reshape(y.shape)`",
    "zero_": "`tr.zeros(*shape)`, or `x.grad = None` for a gradient",
}

# Where a name was asked for, and what it is called here.
OURS = {
    "Tensor": {**TENSOR, "softmax": "`tr.softmax(x, axis)`"},
    "Module": {
        "add_module": "`setattr(model, name, module)`: attributes are parts of a module as they are",
        "apply": "`for module in model.modules(): f(module)`",
        "bfloat16": "none: float16, float32 and float64 are the dtypes of a module",
        "children": "`named_children()`",
        "cpu": '`model.to("cpu")`',
        "cuda": '`model.to("cuda")`',
        "double": '`model.to("float64")`',
        "float": '`model.to("float32")`',
        "half": '`model.to("float16")`',
        "register_forward_hook": "none: call the part and look at what it returns",
        "register_module": "`setattr(model, name, module)`: attributes are parts of a module as they are",
        "register_parameter": "`model.name = tr.nn.Parameter(values)`",
        "requires_grad_": "`for p in model.parameters(): p.requires_grad = wanted`",
    },
    "schedule": {
        "get_last_lr": "`last_lr`, without a call",
    },
    "tr": {
        **TENSOR,
        "cat": "`tr.concatenate(tensors, axis)`",
        "backends": "none: `tr.enable_numba()` compiles kernels, and threadpoolctl sets the threads",
        "bfloat16": 'none: "float16", "float32" and "float64" are the dtypes',
        "device": '`"cpu"` or `"cuda:0"`: a string is a device',
        "float16": '`"float16"`: a string or NumPy\'s is a dtype',
        "float32": '`"float32"`: a string or NumPy\'s is a dtype',
        "float64": '`"float64"`: a string or NumPy\'s is a dtype',
        "from_numpy": "`tr.Tensor(array)`, which copies",
        "get_num_threads": "`threadpoolctl.threadpool_info()`",
        "int64": '`"int64"`: a string or NumPy\'s is a dtype',
        "is_tensor": "`isinstance(x, tr.Tensor)`",
        "linspace": "`tr.Tensor(np.linspace(...))`",
        "load": "`safetensors.numpy.load_file(path)`, for `model.load_state_dict`: nothing here reads a pickle",
        "long": '`"int64"`: a string or NumPy\'s is a dtype',
        "multinomial": "`tr.decoding.sample`, or NumPy's `Generator.choice`",
        "permute": "`tr.transpose(x, axes)`",
        "randint": "`tr.Tensor(generator.integers(low, high, shape))` of a NumPy Generator",
        "randperm": "`generator.permutation(n)` of a NumPy Generator",
        "save": "`safetensors.numpy.save_file(arrays, path)` of a `state_dict`: nothing here writes a pickle",
        "set_num_threads": "`threadpoolctl.threadpool_limits(n)`, or OPENBLAS_NUM_THREADS=n before Python starts",
        "utils": "`tr.data` for batches, `tr.checkpoint` for checkpoints",
        "autograd": "`tr.grad`, `tr.op` and their like",
        "func": "`tr.grad_of`, `tr.vjp`, `tr.jvp`, `tr.jacobian`, `tr.hessian`",
        "cuda": '`x.to("cuda")`, `tr.synchronize()`; `tinygrad-rnn doctor` says what is there',
    },
    "nn": {
        "BCEWithLogitsLoss": "the function `tr.nn.functional.binary_cross_entropy_with_logits`",
        "CTCLoss": "the function `tr.nn.functional.ctc_loss`",
        "CrossEntropyLoss": "the function `tr.nn.functional.cross_entropy`, with classes on the last axis",
        "Flatten": "`x.reshape(len(x), -1)`, or that as a function in `Sequential`",
        "HuberLoss": "the function `tr.nn.functional.huber_loss`",
        "L1Loss": "the function `tr.nn.functional.l1_loss`",
        "MSELoss": "the function `tr.nn.functional.mse_loss`",
        "ModuleDict": "a `tr.nn.Module` with the modules as attributes",
        "NLLLoss": "the function `tr.nn.functional.nll_loss`",
        "ParameterList": "a list of `tr.nn.Parameter` as an attribute",
        "SmoothL1Loss": "the function `tr.nn.functional.huber_loss`",
        "TransformerEncoder": "a `tr.nn.Sequential` or a list of `tr.nn.TransformerEncoderLayer`",
        "utils": "`tr.optim.clip_grad_norm_`, and `lengths=` of recurrent layers for packed sequences",
    },
    "nn.functional": {
        "embedding": "`tr.take(table, ids, axis=0)`",
        "linear": "`tr.linear`",
        "log_softmax": "`tr.log_softmax`",
        "one_hot": "`np.eye(classes)[ids]`; losses take the ids",
        "pad": "`tr.pad`",
        "relu": "`tr.relu`",
        "gelu": "`tr.gelu`",
        "sigmoid": "`tr.sigmoid`",
        "softmax": "`tr.softmax`",
        "softplus": "`tr.softplus`",
        "tanh": "`tr.tanh`",
    },
    "nn.init": {
        "ones_": "`tr.nn.init.constant_(parameter, 1)`",
        "zeros_": "`tr.nn.init.constant_(parameter, 0)`",
    },
    "optim": {
        "lr_scheduler": "`tr.optim`: StepLR, CosineAnnealingLR, LambdaLR, ReduceLROnPlateau",
    },
}

# What a TypeError says where a port calls what it did not call before, what the line holds then, and what to write.
CALLS = (
    ("'int' object is not callable", ".size(", "PyTorch's `x.size()` is `x.shape` here, and `x.size(1)` `x.shape[1]`"),
    ("unexpected keyword argument 'dim'", "dim", "PyTorch's `dim=` is `axis=` here"),
    ("unexpected keyword argument 'keepdim'", "keepdim", "PyTorch's `keepdim=` is `keepdims=` here"),
    ("unexpected keyword argument 'set_to_none'", "set_to_none", "gradients are None after `zero_grad()` anyway"),
)


def ours(where: str, name: str) -> str:
    """What to say of a name of PyTorch that was asked for in a part of this library; "" for any other name.

    >>> ours("Tensor", "numel")
    "PyTorch's `numel` is `x.size`, without a call"
    >>> ours("Tensor", "nummel")
    ''
    """
    found = OURS[where].get(name)
    return f"PyTorch's `{name}` is {found}" if found else ""


def missing(owner: Any, where: str, name: str) -> Any:
    """The end of a class's `__getattr__`: raise the AttributeError of `owner`, and say ours if `name` is PyTorch's.

    A property that raised an AttributeError itself raises it again: what it says is what is wrong.
    """
    if (hint := ours(where, name)) and not hasattr(type(owner), name):
        raise AttributeError(f"{type(owner).__name__!r} object has no attribute {name!r}: {hint}", name=name, obj=owner)
    return object.__getattribute__(owner, name)


def no_name(module: str, name: str) -> AttributeError:
    """The AttributeError of a module of this library."""
    hint = ours(module.removeprefix("tinygrad_rnn").removeprefix(".") or "tr", name)
    return AttributeError(f"module {module!r} has no attribute {name!r}" + (f": {hint}" if hint else ""), name=name)


def tell_call(error: BaseException) -> None:
    """Give a TypeError a note of what to write, if it comes of a line that is PyTorch's."""
    said = str(error)
    for text, held, note in CALLS:
        if text in said and note not in getattr(error, "__notes__", ()):
            calls = traceback.walk_tb(error.__traceback__)
            if any(held in linecache.getline(frame.f_code.co_filename, line) for frame, line in calls):
                error.add_note(note)
