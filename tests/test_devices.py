"""Every process uses one device: the one that is named, or the one of its own number.

There is no GPU here: torch is told that there are two. What runs on one is proved by the device
that accelerate, transformers and trl are given, and by two processes on the CPU
(`test_processes.py`).
"""

import os

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from transformers import Gemma4ForConditionalGeneration

from commands import device as devices
from commands.device import accelerate_uses, pick_device
from commands.errors import InputError
from gemma4 import gemma
from stage3_finetune.trainer_arguments import arguments_for_device
from stage3_finetune.training_settings import TrainConfig

CPU = torch.device("cpu")
SECOND = torch.device("cuda", 1)


@pytest.fixture
def current(monkeypatch):
    """Two GPUs; the list of those that were made torch's current one."""
    made_current = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", made_current.append)
    monkeypatch.setattr(devices, "refuse_absent", lambda device: None)
    AcceleratorState._reset_state(reset_partial_state=True)
    yield made_current
    AcceleratorState._reset_state(reset_partial_state=True)


def launch(monkeypatch, number, num_processes=2):
    monkeypatch.setenv("WORLD_SIZE", str(num_processes))
    monkeypatch.setenv("LOCAL_RANK", str(number))


@pytest.mark.parametrize(
    ("name", "device"), [("auto", "cuda:0"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1")]
)
def test_a_single_process_takes_one_of_two(name, device, current):
    assert pick_device(name) == torch.device(device)
    assert current == [torch.device(device)]


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_each_of_several_processes_takes_its_own(name, current, monkeypatch):
    for number in (0, 1):
        launch(monkeypatch, number)
        assert pick_device(name) == torch.device("cuda", number)
    assert current == [torch.device("cuda", 0), SECOND]


@pytest.mark.parametrize(
    ("name", "number", "message"),
    [
        ("cuda:0", 0, "--device cuda:0 under torchrun or accelerate launch: each process takes"),
        ("cuda:1", 1, "--device cuda:1 under torchrun or accelerate launch: each process takes"),
        ("auto", 2, r"--device auto: process 2 of this machine sees 2 GPU\(s\)"),
        ("mps", 1, "several processes cannot work together on MPS"),
    ],
)
def test_what_several_processes_cannot_have(name, number, message, current, monkeypatch):
    launch(monkeypatch, number, num_processes=4)
    with pytest.raises(InputError, match=message) as caught:
        pick_device(name)
    assert "\n" not in str(caught.value) and not current


def test_a_launcher_with_one_process(current, monkeypatch):
    """accelerate would hand DistributedDataParallel the process's number, whatever the device."""
    launch(monkeypatch, 0, num_processes=1)
    assert pick_device("auto") == torch.device("cuda", 0)
    assert pick_device("mps") == torch.device("mps")
    with pytest.raises(InputError, match="leave it out, and choose GPUs with CUDA_VISIBLE_DEV"):
        pick_device("cuda:1")


def test_the_cpu_is_shared(current, monkeypatch):
    launch(monkeypatch, 1)
    assert pick_device("cpu") == CPU
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")  # accelerate launch --cpu
    assert pick_device("auto") == CPU


def test_accelerate_takes_the_device_that_was_named(current):
    with accelerate_uses(SECOND):
        assert Accelerator().device == SECOND
    assert "ACCELERATE_TORCH_DEVICE" not in os.environ


def test_trl_takes_that_device_and_no_other(current, tmp_path):
    """Without it: GPU 0, two GPUs, and batches twice as large."""
    config = TrainConfig(dialogues=tmp_path, rvq="rvq", out=tmp_path / "run", batch_size=3)
    arguments = arguments_for_device(config, SECOND, torch.float32)
    assert (arguments.device, arguments.n_gpu, arguments.train_batch_size) == (SECOND, 1, 3)
    assert arguments.distributed_state.device == SECOND
    assert current[-1] == SECOND


def test_gemma_is_loaded_onto_a_gpu_tensor_by_tensor(tiny_models, monkeypatch):
    """What transformers makes of a map with one device: the same weights, nothing beside them."""
    asked = []
    load = Gemma4ForConditionalGeneration.from_pretrained

    def load_onto_the_cpu(name, **settings):
        asked.append(settings.pop("device_map", None))
        return load(name, **settings, device_map={"": CPU})

    name = str(tiny_models / "gemma")
    plain, _ = gemma.load_gemma(name, device=CPU, dtype=torch.float32)
    monkeypatch.setattr(Gemma4ForConditionalGeneration, "from_pretrained", load_onto_the_cpu)
    mapped, _ = gemma.load_gemma(name, device=SECOND, dtype=torch.float32)
    gemma.load_gemma(name, device=CPU, dtype=torch.float32)
    assert asked == [{"": SECOND}, None]
    state = mapped.state_dict()
    for key, tensor in plain.state_dict().items():
        assert torch.equal(state[key], tensor), key
    assert not any(hasattr(module, "_hf_hook") for module in mapped.modules())
    assert "to" not in vars(mapped) and not hasattr(plain, "hf_device_map")
