"""Model folders with code of their own, and chat templates that misbehave.

The code creates the canary file when it is imported or run; a `y` waits on standard input, which is
what transformers asks for before it runs such code.
"""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.attacks.harness import CANARY, Case
from tests.attacks.readers import (
    ASK,
    CPU,
    GEMMA,
    HEAD,
    JUDGE_HEAD,
    MANIFEST,
    MIMI,
    OUT,
    SAY,
    SHORT,
    Reader,
    are_there,
)

KIND = "remote_code"
HOSTILE = f"""import os
open(os.environ["{CANARY}"], "w").close()
from transformers import *
class Hostile: pass
HostileConfig = HostileTokenizer = HostileModel = HostileExtractor = PretrainedConfig
def generate(*args, **kwargs): pass
"""
READERS: dict[str, tuple[Reader, ...]] = {
    "gemma": (
        Reader("stage1_rvq.embed", (*MANIFEST, "--gemma", "input", *OUT, *CPU), ()),
        Reader("stage3_finetune.chat", ("--gemma", "input", *ASK), ()),
        Reader("speech_head.speak", (*HEAD, *MIMI, "--gemma", "input", *SAY), ()),
        Reader("stage3_finetune.train", (
            "--dialogues", "{world}/spoken", "--rvq", "{world}/rvq", "--gemma", "input",
            "--lora-rank", "2", "--batch-size", "2", "--accumulate", "1", *OUT, *SHORT), ()),
        Reader("speech_head.states", (
            *MANIFEST, "--recognizer", "{world}/recognizer", *MIMI, "--gemma", "input", *OUT,
            *CPU), ()),
    ),
    "mimi": (Reader("speech_head.speak", (*HEAD, *GEMMA, "--mimi", "input", *SAY), ()),),
    "llama": (Reader("stage2_speechless.train", (
        "--codes", "{world}/codes", "--init-from", "input", "--depth-width", "32",
        "--depth-heads", "2", *OUT, *SHORT), ()),),
    "asr": (Reader("speech_head.evaluate", (*JUDGE_HEAD, "--asr", "input"), ()),),
    "voices": (Reader("speech_head.evaluate", (
        *JUDGE_HEAD, "--recognizer", "{world}/recognizer", "--speaker-model", "input"), ()),),
}  # fmt: skip

AUTO_MAP = {
    "AutoConfig": "hostile.HostileConfig",
    "AutoModel": "hostile.HostileModel",
    "AutoModelForCausalLM": "hostile.HostileModel",
    "AutoModelForCTC": "hostile.HostileModel",
    "AutoModelForSpeechSeq2Seq": "hostile.HostileModel",
    "AutoModelForAudioXVector": "hostile.HostileModel",
    "AutoTokenizer": ["hostile.HostileTokenizer", "hostile.HostileTokenizer"],
    "AutoFeatureExtractor": "hostile.HostileExtractor",
    "AutoProcessor": "hostile.HostileExtractor",
}


@dataclass(frozen=True)
class Trick:
    """A way to have code of a folder run."""

    name: str
    play: Callable[[Path], None]


def _change(name: str, **changes: Any) -> Callable[[Path], None]:
    def play(folder: Path) -> None:
        path = folder / name
        settings = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        path.write_text(json.dumps({**settings, **changes}), encoding="utf-8")

    return play


def _add(name: str, text: str) -> Callable[[Path], None]:
    def play(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")

    return play


CONFIGS = (
    "config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json",
    "generation_config.json",
)  # fmt: skip
TRICKS = (
    *(Trick(f"auto_map in {name}", _change(name, auto_map=AUTO_MAP)) for name in CONFIGS),
    *(Trick(f"auto_map and an unknown kind in {name}",
            _change(name, auto_map=AUTO_MAP, model_type="hostile", tokenizer_class="Hostile",
                    feature_extractor_type="Hostile")) for name in CONFIGS[:3]),
    Trick("code of another repository", _change(
        "config.json", auto_map={key: f"some/repo--{value}" for key, value in AUTO_MAP.items()})),
    Trick("a custom generate", _add("custom_generate/generate.py", HOSTILE)),
    Trick("a custom pipeline", _change("config.json", custom_pipelines={
        "automatic-speech-recognition": {"impl": "hostile.Hostile", "pt": ["AutoModelForCTC"]}})),
    Trick("an adapter of another model", _change(
        "adapter_config.json", base_model_name_or_path="input", peft_type="LORA",
        auto_mapping={"base_model_class": "Hostile", "parent_library": "hostile"})),
    Trick("an attention of another library", _change(
        "config.json", attn_implementation="some/kernel", _attn_implementation="some/kernel")),
    Trick("a quantiser of another library", _change(
        "config.json", quantization_config={"quant_method": "hostile", "modules": "hostile"})),
    Trick("modules beside it", lambda folder: [
        (folder.parent / f"{name}.py").write_text(HOSTILE, encoding="utf-8")
        for name in ("hostile", "kenlm", "pyctcdecode", "sitecustomize", "kernels")] and None),
)  # fmt: skip

# What jinja's sandbox does not stop, or must.
TEMPLATES = {
    "for ever": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "for ever in C": "{{ 9 ** (9 ** 9) }}",
    "much memory": "{% set a = namespace(x='aaaa') %}{% for i in range(60) %}"
                   "{% set a.x = a.x ~ a.x %}{% endfor %}{{ a.x }}",
    "much memory at once": "{{ 'a' * 10 ** 11 }}",
    "a wide field": "{{ '%99999999999d' % 1 }}",
    "much text": "{{ 'a' * 10 ** 7 }}",
    "a long range": "{% for a in range(10 ** 12) %}{% endfor %}",
    "raises": "{{ raise_exception('no') }}",
    "divides by zero": "{{ 1 / 0 }}",
    "calls nothing": "{{ none() }}",
    "no template": "{% if %}",
    "deep": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "recursion": "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
    "nothing": "",
    "not a prefix":
        "{{ messages | length }}{% for m in messages %}{{ m.content }}<turn|>{% endfor %}",
    "a prompt that is no beginning":
        "{% if add_generation_prompt %}x{% endif %}{% for m in messages %}<turn|>{% endfor %}",
    "no end of turn": "{% for m in messages %}{{ m.role }}{% endfor %}",
    "audio twice": "{% for m in messages %}<|audio|><|audio|>{{ m.role }}<turn|>{% endfor %}",
    "Python's insides": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "os": "{{ cycler.__init__.__globals__.os.system('touch $" + CANARY + "') }}",
    "os by attr": "{{ (lipsum|attr('__globals__'))['os'].popen('touch $" + CANARY + "').read() }}",
    "os by format": "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
    "includes": "{% include '/etc/passwd' %}",
    "imports": "{% import 'os' as os %}{{ os.system('touch $" + CANARY + "') }}",
}  # fmt: skip


def cases(world: Path, seed: int, count: int) -> list[Case]:
    """Cases drawn over all tricks, templates and commands.

    Args:
        world: made by `world.py`.
        seed: of what is drawn.
        count: how many.
    """
    tricks = [
        _trick_case(world, folder, reader, trick)
        for folder, readers in READERS.items()
        for reader in readers
        for trick in TRICKS
        if (world / folder).exists() and are_there(world, reader.words)
    ]
    templates = [
        _template_case(world, reader, name, where)
        for reader in READERS["gemma"][1:]
        for name in TEMPLATES
        for where in ("chat_template.jinja", "tokenizer_config.json")
        if are_there(world, reader.words)
    ]
    rng = random.Random(f"{seed} {KIND}")
    rng.shuffle(tricks)
    rng.shuffle(templates)
    half = max(count - count // 2, count - len(templates))
    return tricks[:half] + templates[: count - half]


def _trick_case(world: Path, folder: str, reader: Reader, trick: Trick) -> Case:
    def make(inside: Path, rng: random.Random) -> None:
        shutil.copytree(world / folder, inside / "input")
        for name in ("hostile.py", "__init__.py", "modeling_hostile.py"):
            (inside / "input" / name).write_text(HOSTILE, encoding="utf-8")
        trick.play(inside / "input")

    words = tuple(word.replace("{world}", str(world)) for word in reader.words)
    name = f"{trick.name}, in {folder} for {reader.command}"
    return Case(KIND, name, reader.command, words, make, mentions="input|--")


def _template_case(world: Path, reader: Reader, name: str, where: str) -> Case:
    def make(inside: Path, rng: random.Random) -> None:
        shutil.copytree(world / "gemma", inside / "input")
        (inside / "input" / "chat_template.jinja").unlink(missing_ok=True)
        if where.endswith(".jinja"):
            _add(where, TEMPLATES[name])(inside / "input")
        else:
            _change(where, chat_template=TEMPLATES[name])(inside / "input")

    words = tuple(word.replace("{world}", str(world)) for word in reader.words)
    return Case(
        KIND, f"template: {name}, in {where}, for {reader.command}", reader.command, words, make,
        lambda folder: "was accepted", "template",
    )  # fmt: skip
