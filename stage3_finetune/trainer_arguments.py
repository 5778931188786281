"""The settings of a fine-tuning as trl takes them."""

from typing import TYPE_CHECKING

import torch
from trl import SFTConfig

from commands.device import accelerate_uses
from commands.launchers import PATIENCE

if TYPE_CHECKING:
    from stage3_finetune.training_settings import TrainConfig


def arguments_for_device(
    config: "TrainConfig", device: torch.device, dtype: torch.dtype
) -> SFTConfig:
    """The run's settings as trl takes them, with this device and no other.

    In a single process, transformers 5.23 would take GPU 0, and all others that are visible for
    DataParallel, which trl 1.16 refuses.
    """
    with accelerate_uses(device):
        arguments = _training_arguments(config, device, dtype)
    arguments.__dict__["_setup_devices"] = device  # a cached property
    arguments._n_gpu = 0 if device.type == "cpu" else 1
    if device.type in ("cuda", "xpu"):
        torch.get_device_module(device).set_device(device)  # transformers has set GPU 0
    return arguments


def _training_arguments(
    config: "TrainConfig", device: torch.device, dtype: torch.dtype
) -> SFTConfig:
    """The run's settings as trl takes them."""
    return SFTConfig(
        # Absolute: transformers would take a "~" in it for the user's home.
        output_dir=str(config.out.absolute() / "checkpoints"),
        max_steps=config.steps,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.accumulate,
        learning_rate=config.schedule.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=config.schedule.warmup_steps,
        max_grad_norm=1.0,
        # The loss is divided by the number of labels in the whole step, over all processes.
        average_tokens_across_devices=True,
        # Only that linear map may stay without a gradient: where no row of a process has speech.
        ddp_find_unused_parameters=config.lora.train_embed_audio,
        ddp_timeout=int(PATIENCE.total_seconds()),
        bf16=dtype == torch.bfloat16,
        use_cpu=device.type == "cpu",
        activation_checkpointing=config.gradient_checkpointing,
        # Reentrant checkpointing gives wrong gradients where layers share keys and values
        # (Gemma 4 E2B and E4B, transformers 5.23): equal loss, gradients off by up to 87 %.
        activation_checkpointing_kwargs={"use_reentrant": False},
        save_steps=config.save_every,
        # SpeechTrainer deletes old checkpoints: transformers would ignore a failed deletion and
        # leave half a checkpoint under its name.
        save_total_limit=None,
        logging_steps=1,
        logging_strategy="steps",
        # transformers would replace a NaN loss by the mean of earlier ones, and train on.
        logging_nan_inf_filter=False,
        report_to=[],
        # Its progress bar writes every number to stdout, and stays open if training ends with
        # an error, whose message would follow on the same line. LogSteps has its own bar.
        disable_tqdm=True,
        seed=config.seed,
        data_seed=config.seed,
        # Rows are encoded and labelled by us; trl must not touch, cut or pack them.
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        packing=False,
        dataloader_pin_memory=device.type == "cuda",
    )
