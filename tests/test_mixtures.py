"""What belongs to different audio towers or quantisers is refused by every command, in one line,
unless the user insists.

The two towers are of the same shape, and so are the quantisers trained on them: nothing but their
fingerprints tells them apart.
"""

import importlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from conftest import run
from every_command import find_commands

from commands.command_line import run_command
from commands.errors import InputError
from commands.json_files import read_json
from commands.origins import Origin, combine, find_mixture, refuse_mixture
from commands.run_folder import OutputFolder
from data_manifests import degrade
from demo import tiny_models as make_models
from gemma4.gemma import load_audio_encoder
from gemma4.tower_identity import norm_fingerprint, tower_origin
from pipeline.preflight_checks import load_sounds, stage_checks
from speech_head.mimi import load_mimi
from stage1_rvq import embed, tokenize_corpus, train, transcribe
from stage1_rvq.codes import read_codes_origins
from stage1_rvq.data import EmbeddingFolder
from stage1_rvq.model import load_rvq
from stage1_rvq.published import BEST_FILE
from stage2_speechless.model import load_speechless
from stage3_finetune import train as train_finetune
from stage3_finetune.conversation import load_conversation
from tests.attacks.settings import settings_of

CPU = torch.device("cpu")
ON_CPU = ("--device", "cpu")
SHORT = ("--steps", 1, "--save-every", 1, "--warmup-steps", 0)
QUANTIZER = ("--codebook-size", 16, "--batch-frames", 128, "--num-codebooks", 4)


@pytest.fixture(scope="module")
def world(whole_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every input there is, made with one Gemma; and `other-...`, made with another one."""
    world = shutil.copytree(whole_world, tmp_path_factory.mktemp("mixtures") / "world")
    run(make_models.main, "--out", world / "others", "--seed", 1)
    shutil.copytree(world / "others" / "gemma", world / "other-gemma")
    run(
        degrade.main, "--manifest", world / "train.jsonl", "--out", world / "degraded",
        "--conditions", "clean",
    )  # fmt: skip
    embedded = ("--embeddings", world / "other-embeddings")
    run(
        embed.main, "--manifest", world / "train.jsonl", "--gemma", world / "other-gemma",
        "--out", embedded[1], *ON_CPU,
    )  # fmt: skip
    run(train.main, *embedded, *QUANTIZER, *SHORT, "--out", world / "other-rvq", *ON_CPU)
    run(
        tokenize_corpus.main, *embedded, "--rvq", world / "other-rvq",
        "--out", world / "other-codes", *ON_CPU,
    )  # fmt: skip
    return world


@dataclass(frozen=True)
class Mixture:
    """A command line with names of the world's files in place of paths.

    Attributes:
        command: its dotted name.
        line: its words; `@rvq` is the world's `rvq`.
        is_quick: whether it is run to its end, too, where the user insists.
        out: what it writes is called.
    """

    command: str
    line: str
    is_quick: bool = True
    out: str = "out"

    def words(self, world: Path, folder: Path) -> list[str]:
        """Its words; what it writes lies in a folder of this test's own."""
        needs_out = "--out" in _flags(self.command)
        whole = f"{self.line} --out @" if needs_out else self.line
        whole += " --device cpu" if "--device" in _flags(self.command) else ""
        return [
            str(world / word[1:] if len(word) > 1 else folder / self.out)
            if word[0] == "@"
            else word
            for word in whole.split()
        ]


def _flags(command: str) -> set[str]:
    return {setting.flag for setting in settings_of(command)}


SMALL = "--steps 1 --width 32 --num-layers 1 --depth-width 32 --depth-layers 1"
RQ = "--rvq @rvq --recognizer @recognizer"
TALK = "--head @head --mimi @mimi --gemma @other-gemma"
MIXTURES = [
    Mixture(
        "stage1_rvq.train",
        "--embeddings @embeddings --dev-embeddings @other-embeddings --steps 1 --codebook-size 16",
    ),
    Mixture(
        "stage1_rvq.train",
        "--embeddings @other-embeddings --recognizer @recognizer --steps 1 --codebook-size 16",
    ),
    Mixture(
        "stage1_rvq.train_recognizer",
        "--embeddings @embeddings --dev-embeddings @other-embeddings"
        " --steps 1 --num-units 40 --width 16",
    ),
    Mixture("stage1_rvq.evaluate", "--rvq @rvq --embeddings @other-embeddings"),
    Mixture(
        "stage1_rvq.evaluate",
        "--rvq @rvq --embeddings @embeddings --manifest @train.jsonl --gemma @other-gemma",
    ),
    Mixture("stage1_rvq.export", "--rvq @rvq --dev-embeddings @other-embeddings"),
    Mixture(
        "stage1_rvq.tokenize_corpus", "--rvq @rvq --manifest @train.jsonl --gemma @other-gemma"
    ),
    Mixture("stage1_rvq.tokenize_corpus", "--rvq @rvq --embeddings @other-embeddings"),
    Mixture("stage1_rvq.transcribe", f"--codes @other-codes {RQ}"),
    Mixture("stage1_rvq.transcribe", "--embeddings @other-embeddings --recognizer @recognizer"),
    Mixture(
        "stage1_rvq.transcribe",
        "--manifest @train.jsonl --recognizer @recognizer --gemma @other-gemma",
    ),
    Mixture("stage1_rvq.compare_codes", f"--codes @codes --other-codes @other-codes {RQ}"),
    Mixture("stage2_speechless.train", f"--codes @codes --dev-codes @other-codes {SMALL}"),
    Mixture("stage2_speechless.train", f"--codes @codes --rvq @other-rvq {SMALL}", is_quick=False),
    Mixture(
        "stage2_speechless.train",
        "--codes @codes --dev-codes @codes --rvq @other-rvq --recognizer @recognizer",
        is_quick=False,
    ),
    Mixture(
        "stage2_speechless.evaluate",
        f"--speechless @speechless --codes @other-codes {RQ}",
        is_quick=False,
    ),
    Mixture(
        "stage2_speechless.generate",
        "--speechless @speechless --text @sentences.txt --rvq @other-rvq --recognizer @recognizer"
        " --max-cer 100",
    ),
    Mixture(
        "stage3_finetune.speak_dialogues",
        "--speechless @speechless --dialogues @dialogues.jsonl --rvq @other-rvq"
        " --recognizer @recognizer --max-cer 100",
    ),
    Mixture(
        "stage3_finetune.train",
        "--dialogues @spoken --rvq @other-rvq --gemma @gemma",
        is_quick=False,
    ),
    Mixture(
        "stage3_finetune.train",
        "--dialogues @spoken --rvq @rvq --gemma @other-gemma",
        is_quick=False,
    ),
    Mixture(
        "stage3_finetune.train",
        "--dialogues @spoken --rvq @rvq --gemma @gemma --transcribed @other-codes",
        is_quick=False,
    ),
    Mixture(
        "stage3_finetune.evaluate",
        "--dialogues @dialogues.jsonl --recordings @train.jsonl --finetune @finetune"
        " --gemma @other-gemma --max-new-tokens 2",
    ),
    Mixture(
        "stage3_finetune.evaluate_noise",
        "--dialogues @dialogues.jsonl --degraded @degraded --finetune @finetune"
        " --gemma @other-gemma --max-new-tokens 2",
    ),
    Mixture(
        "stage3_finetune.chat",
        "--finetune @finetune --gemma @other-gemma --prompt Maakye --max-new-tokens 2",
    ),
    Mixture(
        "stage3_finetune.transcribe",
        "--finetune @finetune --gemma @other-gemma --audio @audio/0.wav --max-new-tokens 2",
        out="out.vtt",
    ),
    Mixture("stage3_finetune.export", "--finetune @finetune --gemma @other-gemma"),
    Mixture(
        "speech_head.states",
        "--manifest @train.jsonl --recognizer @recognizer --mimi @mimi --gemma @other-gemma",
        is_quick=False,
    ),
    Mixture(
        "speech_head.train",
        "--states @states --dev-states @states --recognizer @recognizer --mimi @mimi"
        " --gemma @other-gemma --steps 1",
        is_quick=False,
    ),
    Mixture(
        "speech_head.evaluate",
        f"{TALK} --manifest @train.jsonl --recognizer @recognizer",
        is_quick=False,
    ),
    Mixture("speech_head.judge", "--speech @speech --recognizer @recognizer --gemma @other-gemma"),
    Mixture("speech_head.speak", f"{TALK} --text Maakye", is_quick=False),
    Mixture("speech_head.synthesize", f"{TALK} --text @sentences.txt", is_quick=False),
    Mixture("speech_head.speak", f"{TALK} --finetune @finetune --text Maakye", is_quick=False),
    Mixture(
        "pipeline.compare_precision",
        f"{TALK} --dialogues @dialogues.jsonl --recordings @train.jsonl --recognizer @recognizer"
        " --precisions float32",
        is_quick=False,
    ),
    Mixture(
        "pipeline.compare_precision",
        "--finetune @finetune --gemma @other-gemma --dialogues @dialogues.jsonl"
        " --recordings @train.jsonl --precisions float32",
        is_quick=False,
    ),
    Mixture("voice_chat.chat", f"{TALK} --prompt Maakye", is_quick=False),
    Mixture(
        "pipeline.publish",
        f"{TALK} --finetune @finetune --rvq @rvq",
        is_quick=False,
    ),
]


def test_every_command_that_could_mix_is_tried() -> None:
    could = {name for name in find_commands() if "--allow-mixture" in _flags(name)}
    # These load their models as the chat in the terminal does, and would serve them or listen.
    same = {
        "voice_chat.serve", "voice_chat.talk", "benchmarks.hands_free",
        "benchmarks.browser_microphone", "benchmarks.echo", "benchmarks.later_questions",
        "benchmarks.many_talkers",
    }  # fmt: skip
    assert could == {mixture.command for mixture in MIXTURES} | same


@pytest.mark.parametrize("mixture", MIXTURES, ids=lambda mixture: mixture.command)
def test_a_mixture_is_refused_in_one_line(
    world: Path, mixture: Mixture, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, [*_, last] = end_of(mixture.command, mixture.words(world, tmp_path), capsys)
    assert code == 2
    assert last.startswith("error: --")
    assert " belongs to another " in last and "--allow-mixture" in last
    assert last.count("other-") == 1 or "--other-codes" in last
    assert not (tmp_path / mixture.out).exists()


@pytest.mark.parametrize(
    "mixture", [m for m in MIXTURES if m.is_quick], ids=lambda mixture: mixture.command
)
def test_the_user_may_insist(
    world: Path, mixture: Mixture, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*mixture.words(world, tmp_path), "--allow-mixture"]
    run(importlib.import_module(mixture.command).main, *words)
    assert "--allow-mixture: --" in capsys.readouterr().err


def end_of(
    command: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> tuple[object, list[str]]:
    """The exit code of a command that ends early, and the lines it wrote on stderr."""
    with pytest.raises(SystemExit) as caught:
        run_command(lambda: importlib.import_module(command).main(words))
    return caught.value.code, capsys.readouterr().err.strip().splitlines()


def test_states_of_two_gemmas(world: Path, tmp_path: Path) -> None:
    """A folder that says another tower, as the same one with another Gemma would."""
    other = shutil.copytree(world / "states", tmp_path / "states")
    rewrite(other / "provenance.json", tower="0123456789abcdef")
    head_train = importlib.import_module("speech_head.train")
    words = ("--states", world / "states", "--dev-states", other, "--out", tmp_path / "out")
    with pytest.raises(
        InputError, match=r"--states .*states belongs to another audio tower than --dev-states"
    ):
        run(head_train.main, *words, *ON_CPU)


def test_preflight_says_what_does_not_belong_together(world: Path) -> None:
    conversation = load_conversation(
        str(world / "gemma"), world / "finetune", device=CPU, dtype=torch.float32
    )
    mimi = load_mimi(str(world / "mimi"), num_codebooks=8, device=CPU)
    head = str(world / "head")
    found = {}
    for name in ("rvq", "other-rvq"):
        checks = stage_checks(
            conversation, conversation.encoder, mimi, load_sounds(None), str(world / name),
            world / "finetune", head, device=CPU,
        )  # fmt: skip
        [found[name]] = [c for c in checks if c.name == "towers and codes belong together"]
    assert found["rvq"].measure() == "of one audio tower"
    with pytest.raises(InputError, match=r"belongs to another audio tower than --rvq .*other-rvq"):
        found["other-rvq"].measure()


def test_copies_of_one_tower_agree(world: Path, tmp_path: Path) -> None:
    as_published = load_audio_encoder(str(world / "gemma"), device=CPU, dtype=torch.bfloat16)
    as_published.tower.save_pretrained(tmp_path / "copy")
    as_published.extractor.save_pretrained(tmp_path / "copy")
    copy = load_audio_encoder(str(tmp_path / "copy"), device=CPU, dtype=torch.float32)
    whole = load_audio_encoder(str(world / "gemma"), device=CPU, dtype=torch.float32)
    assert as_published.origin == copy.origin == whole.origin == tower_origin(whole.tower)
    other = load_audio_encoder(str(world / "other-gemma"), device=CPU, dtype=torch.float32)
    assert other.dim == whole.dim
    assert other.origin.tower != whole.origin.tower and other.origin.norm != whole.origin.norm
    with torch.no_grad():
        whole.tower.output_proj.bias[0] += 1
    assert tower_origin(whole.tower).tower != copy.origin.tower


def test_a_tower_that_was_changed_below_its_last_layer_is_another_one(
    world: Path, tmp_path: Path
) -> None:
    """A folder of an older version, which recorded the last layer only, is accepted for both."""
    encoder = load_audio_encoder(str(world / "gemma"), device=CPU, dtype=torch.float32)
    with torch.no_grad():
        encoder.tower.layers[0].norm_out.weight[0] *= 1.5
    encoder.tower.save_pretrained(tmp_path / "tuned")
    encoder.extractor.save_pretrained(tmp_path / "tuned")
    tuned = tower_origin(encoder.tower)
    rvq = load_rvq(str(world / "rvq"), device=CPU).origin()
    assert tuned.norm and tuned.tower[:16] == rvq.tower[:16] and tuned.tower != rvq.tower
    words = ("--manifest", world / "train.jsonl", "--gemma", tmp_path / "tuned", *ON_CPU)
    with pytest.raises(InputError, match=r"belongs to another audio tower than --gemma .*tuned"):
        run(tokenize_corpus.main, "--rvq", world / "rvq", *words, "--out", tmp_path / "x")
    older = shutil.copytree(world / "rvq", tmp_path / "rvq")
    rewrite(older / "model" / "config.json", tower=rvq.tower[:16])
    run(tokenize_corpus.main, "--rvq", older, *words, "--out", tmp_path / "codes")
    # What is made of both knows the whole tower again.
    assert read_json(tmp_path / "codes" / "provenance.json")["tower"] == tuned.tower


def test_a_quantiser_is_the_same_in_every_layout(world: Path) -> None:
    ours = load_rvq(str(world / "rvq"), device=CPU)
    published = load_rvq(str(world / "published" / BEST_FILE), device=CPU)
    assert published.origin() == Origin(quantizer=ours.origin().quantizer)
    embeddings = EmbeddingFolder(world / "embeddings")
    assert ours.origin().tower == embeddings.origin.tower != ""
    assert ours.origin().quantizer != load_rvq(str(world / "other-rvq"), device=CPU).origin()


def test_stages_pass_on_what_they_were_made_with(world: Path) -> None:
    """And what none of them was given, they do not claim."""
    made_with = load_rvq(str(world / "rvq"), device=CPU).origin().as_facts()
    assert all(made_with.values())
    recorded = {
        name: read_json(world / name / "provenance.json")
        for name in ("codes", "speechless", "spoken", "finetune")
    }
    recorded["the model"] = read_json(world / "speechless" / "model" / "config.json")
    for name, facts in recorded.items():
        assert {key: facts[key] for key in made_with} == made_with, name
    for facts in (
        read_json(world / "states" / "provenance.json"),
        *(read_json(world / name / "model" / "config.json") for name in ("head", "parallel")),
    ):
        assert facts["tower"] == made_with["tower"] and facts["quantizer"] == ""


def test_one_copied_file_still_says_it(world: Path, tmp_path: Path) -> None:
    codes = tmp_path / "codes"
    codes.mkdir()
    shutil.copy(world / "other-codes" / "codes_00000.parquet", codes / "a.parquet")
    words = ("--rvq", world / "rvq", "--recognizer", world / "recognizer", "--out")
    with pytest.raises(InputError, match=r"--codes .*a.parquet belongs to another audio tower"):
        run(transcribe.main, "--codes", codes / "a.parquet", *words, tmp_path / "out", *ON_CPU)
    shutil.copy(world / "codes" / "codes_00000.parquet", codes / "b.parquet")
    assert "a.parquet belongs to another" in str(find_mixture(read_codes_origins(codes)))


def test_older_quantisers_are_told_by_the_last_norm(world: Path, tmp_path: Path) -> None:
    """They do not say their tower, but hold a weight of it."""
    older = older_copy(world / "rvq", tmp_path / "rvq", "model/config.json", "tower")
    assert load_rvq(str(older), device=CPU).origin().tower == ""
    words = ("--rvq", older, "--manifest", world / "train.jsonl", *ON_CPU)
    run(tokenize_corpus.main, *words, "--gemma", world / "gemma", "--out", tmp_path / "right")
    made_by = "than --gemma .*other-gemma: name two"
    with pytest.raises(InputError, match=made_by):
        run(tokenize_corpus.main, *words, "--gemma", world / "other-gemma", "--out", tmp_path / "x")
    assert norm_fingerprint(torch.ones(8)) == ""


def test_what_does_not_say_it_is_accepted(world: Path, tmp_path: Path) -> None:
    published = world / "published" / BEST_FILE
    words = ("--rvq", published, "--manifest", world / "train.jsonl", *ON_CPU)
    run(tokenize_corpus.main, *words, "--gemma", world / "other-gemma", "--out", tmp_path / "codes")
    facts = read_json(tmp_path / "codes" / "provenance.json")
    assert facts["tower"] and facts["quantizer"]

    adapter = older_copy(
        world / "finetune", tmp_path / "finetune", "provenance.json", "tower", "quantizer"
    )
    chat = importlib.import_module("stage3_finetune.chat")
    run(
        chat.main, "--finetune", adapter, "--gemma", world / "other-gemma", "--prompt", "Maakye",
        "--max-new-tokens", 2, *ON_CPU,
    )  # fmt: skip

    # Which quantiser it was, older models of stage 2 say by the hash of its folder.
    speechless = shutil.copytree(world / "speechless", tmp_path / "speechless")
    rewrite(speechless / "model" / "config.json", tower="", quantizer="0" * 64)
    model = load_speechless(str(speechless), device=CPU)
    assert model.config.origin == Origin()


def test_an_older_run_is_resumed(whole_world: Path, tmp_path: Path) -> None:
    """Its settings do not say whether mixtures are allowed."""
    made = whole_world  # the run names its inputs there, not in the copy
    run_before = older_copy(made / "finetune", tmp_path / "run", "config.json", "allow_mixture")
    words = ["--dialogues", made / "spoken", "--rvq", made / "rvq", "--gemma", made / "gemma"]
    flags = ("--lora-rank", 2, "--batch-size", 2, "--accumulate", 1, *SHORT[:1], 4, "--save-every",
             2, "--warmup-steps", 1, *ON_CPU)  # fmt: skip
    run(train_finetune.main, *words, *flags, "--out", run_before, "--resume")


def older_copy(folder: Path, copy: Path, name: str, *keys: str) -> Path:
    """A copy of a folder, as a version left it that did not write some keys of a file."""
    shutil.copytree(folder, copy)
    rewrite(copy / name, without=keys)
    return copy


def rewrite(path: Path, *, without: tuple[str, ...] = (), **changed: str) -> None:
    """Change a JSON file of a finished folder."""
    content = {**read_json(path), **changed}
    for key in without:
        del content[key]
    path.write_text(json.dumps(content), encoding="utf-8")
    folder = path.parent if (path.parent / "done").exists() else path.parent.parent
    (folder / "done").unlink()
    OutputFolder(folder, is_done=True).finish()


def test_parts_are_compared_where_both_are_known() -> None:
    unknown, one = Origin(), Origin("1" * 16, "a" * 16, "c" * 16)
    assert combine(unknown, one, Origin("2" * 16)) == one
    for other, part in (
        (Origin("2" * 16), "audio tower"),
        (Origin(norm="d" * 16), "audio tower"),
        (Origin("1" * 16, "b" * 16), "quantiser"),
    ):
        assert (
            find_mixture({"--a x": one, "--b y": other})
            == f"--a x belongs to another {part} than --b y"
        )
    for other in (unknown, one, Origin("1" * 16, norm="d" * 16), Origin(quantizer="a" * 16)):
        refuse_mixture({"--a x": one, "--b y": other}, allowed=False)
    whole = Origin("1" * 16 + "e" * 16, "a" * 16)
    assert combine(one, whole, Origin("2" * 32)).tower == whole.tower
    refuse_mixture({"--a x": one, "--b y": whole}, allowed=False)
    assert find_mixture({"--a x": whole, "--b y": Origin("1" * 32)}) is not None
