"""`python -m tests.standin`: all that needs a GPU, on the stand-in for CuPy. It is a test of our code, not of CuPy.

Each part is a process of its own that finds the stand-in as `cupy`. NAMES choose parts; the exit status is 1 if one
failed. Without a C++ compiler, by which kernels run here, they are skipped. What only a device can show is listed in
docs/gpu.md.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

from tests.standin.cupy._raw import MISSING, compiler

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# Files whose tests know of no device, with every new tensor on "cuda"; and what they say of NumPy alone.
ON_CUDA = [
    "tests/optim/test_optimizers.py",
    "tests/optim/test_clip.py",
    "tests/test_decoding.py",
    "tests/nn/test_layers.py",
    "tests/nn/test_functional.py",
    "tests/nn/test_recurrent.py",
]
OF_NUMPY = {
    "values_handed_out_never_change": "reads the view that `.data` is on the host; on a device it is a copy",
    "steps_of_float16_are_those_of_float32": "compares with steps of NumPy's, whose subnormal float32 are not flushed",
    "a_recording_drops_out_of_a_constant": "records a step, which only steps on the CPU are",
    "gradients_of_layer_norm_are_those_of_a_numeric_derivative": "gives NumPy arrays to the layer's kernel",
    "every_law_of_the_kit": "judges a layer by NumPy arrays",
    "dropout_between_layers": "draws the masks again on the host",
    "the_kernel_or_the_plain_graph": "names the nodes of the CPU",
    "one_node_for_each_step": "counts the nodes of the CPU",
    "on_a_gpu_everything_is_as_on_the_cpu": "is marked gpu, and means the CPU where it says so",
    "on_another_library_of_arrays": "of a third library",
    "every_row_of_the_kernel_is_its_plain_definition": "gives NumPy arrays to the loss's kernel",
}

KERNELS = [f"tests/kernels/test_{name}.py" for name in ("cuda", "sequences", "training")]
EXAMPLES = [path.stem for path in sorted((ROOT / "examples").glob("*.py")) if not path.stem.startswith("_")]
SMALL = ["--hidden", "16", "--embedding", "8", "--seq-len", "16", "--batch", "4", "--threads", "1", "--save-every", "5"]


def environment(**more: str) -> dict[str, str]:
    """This one, with the stand-in as `cupy`."""
    paths = {"PYTHONPATH": os.pathsep.join(map(str, (HERE, ROOT)))}
    return {**os.environ, **paths, "OPENBLAS_NUM_THREADS": "1", "COLUMNS": "100", **more}


def run(*command: str | Path, cwd: Path = ROOT, status: int = 0, **more: str) -> str:
    """What a Python program on the stand-in says; a `RuntimeError` if it ends otherwise."""
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )
    if done.returncode != status:
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout[-6000:]}")
    return done.stdout


def train(folder: Path, *options: str | Path, **more: str) -> str:
    """`tinygrad-rnn train` in a folder that holds `text.txt`."""
    return run("-W", "error", "-m", "tinygrad_rnn", "train", *options, cwd=folder, **more)


def weights(run_folder: Path, step: int) -> bytes:
    """The checkpoint of a step."""
    (found,) = run_folder.glob(f"checkpoints/last-{step:06}-*.safetensors")
    return found.read_bytes()


def marked() -> None:
    """The tests marked `gpu`, and the benchmark, by the program that a machine with a GPU runs."""
    with tempfile.TemporaryDirectory() as folder:
        said = run("-m", "benchmarks.gpu", "--quick", "--out", folder)
        assert said.startswith(f"Results: {folder}/gpu.txt") and " passed" in said and "ms a step" in said, said
        found = json.loads(Path(folder, "gpu.json").read_text(encoding="utf-8"))
        assert len(found["cells"]) == 3 and len(found["agreement"]) == 6 and not found["losses"], found


def kernels() -> None:
    """The CUDA kernels: each source by NVRTC and by the C++ compiler, and the layers that they run."""
    print(run("-m", "pytest", "-q", "-rs", *KERNELS[: 1 if compiler() is None else 3]), flush=True)


def on_cuda() -> None:
    """Tests of optimisers, layers, functions and decoding with every new tensor on "cuda"."""
    but = " and ".join(f"not {name}" for name in OF_NUMPY)
    run("-m", "pytest", "-q", "-p", "tests.standin.on_cuda", "-k", but, *ON_CUDA, HYPOTHESIS_PROFILE="dev")


def command() -> None:
    """The command: twice the same bytes; a resume, there and on the host; generate, evaluate, doctor; half installs."""
    from tests.cli.command import TEXT

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "text.txt").write_text(TEXT, encoding="utf-8")
        text = ["--text", "text.txt", "--schedule", "plateau", "--dropout", "0.1", "--device", "cuda", *SMALL]
        said = train(folder, *text, "--steps", "10", "--out", "a")
        assert "The first compiles its kernels" in said, said
        for out in ("b", "c"):
            train(folder, *text, "--steps", "5", "--out", out)
        train(folder, "--resume", "b", "--steps", "10")
        assert weights(folder / "a", 10) == weights(folder / "b", 10), "a resumed run has other bytes"
        train(folder, "--resume", "c", "--steps", "10", "--device", "cpu")
        assert len(weights(folder / "a", 10)) == len(weights(folder / "c", 10)) != 0
        for words in (["generate", "a", "--length", "20"], ["evaluate", "a", "--text", "text.txt"]):
            run("-W", "error", "-m", "tinygrad_rnn", *words, cwd=folder)
        train(folder, *text, "--steps", "2", "--out", "d", "--device", "cuda:1")
        train(folder, *text, "--steps", "5", "--out", "f")
        for words in (["--resume", "f", "--steps", "10"], [*text, "--steps", "5", "--out", "g"]):
            said = run("-m", "tinygrad_rnn", "train", *words, cwd=folder, status=2, CUPY_GPU_MEMORY_LIMIT="60000")
            (last,) = (line for line in said.splitlines() if line.startswith("tinygrad-rnn:"))
            assert "not enough memory for" in last and "--batch or --seq-len" in last and "Traceback" not in said, said
        assert not (folder / "g").exists(), "a run without a step is left"
        train(folder, "--resume", "f", "--steps", "10")
        assert weights(folder / "a", 10) == weights(folder / "f", 10), "memory that ran out has changed a run"
        said = run("-m", "tinygrad_rnn", "doctor")
        assert "GPU          a kernel and a product run" in said, said
        for library, fault in {"nvrtc": "cannot compile a kernel", "cublas": "cannot multiply matrices"}.items():
            more = {"STANDIN_WITHOUT": library}
            assert fault in run("-m", "tinygrad_rnn", "doctor", **more)
            words = ["-m", "tinygrad_rnn", "train", *text, "--out", "e"]
            said = run(*words, cwd=folder, status=2, **more)
            assert fault in said and "pip install" in said and said.count("\n") == 1, said
            assert f'Nothing was checked: device "cuda": CuPy is installed, but {fault}' in run(
                "-m", "benchmarks.gpu", "--out", folder / "h", status=1, **more
            )


def example(name: str) -> None:
    """An example for two steps of each model."""
    with tempfile.TemporaryDirectory() as folder:
        words = [f"examples.{name}", "--quick", "--steps", "2", "--device", "cuda", "--out", str(Path(folder, name))]
        command = [sys.executable, "-m", *words]
        done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, encoding="utf-8")
    # after two steps a claim fails, which is 1; an error is something else
    if done.returncode not in (0, 1) or "Traceback" in done.stderr:
        raise RuntimeError(f"{name} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")


def examples() -> None:
    """Every example, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(example, EXAMPLES))


PARTS: dict[str, Callable[[], None]] = {
    "marked": marked,
    "on_cuda": on_cuda,
    "command": command,
    "examples": examples,
}
BY_NAME = {"kernels": kernels}  # `make kernel-test`, in whose environment NVRTC is


def chosen(names: list[str]) -> Iterator[tuple[str, Callable[[], None]]]:
    for name in names or PARTS:
        if compiler() is None:
            print(f"{name}: skipped, {MISSING}", flush=True)
            if name != "kernels":
                continue
        if name == "examples" and importlib.util.find_spec("sklearn") is None:
            print("examples: left out, without the extra `data`", flush=True)
            continue
        yield name, (PARTS | BY_NAME)[name]


def main(names: list[str]) -> int:
    failed = 0
    for name, part in chosen(names):
        begin = perf_counter()
        try:
            part()
            ending = "ok"
        except (AssertionError, RuntimeError, ValueError) as error:
            failed, ending = 1, f"failed: {error}"
        print(f"{name}: {ending} ({perf_counter() - begin:.0f} s)", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
