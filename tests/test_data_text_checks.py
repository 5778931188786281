"""What makes a text unfit to be spoken, and how texts are cut into sentences."""

import pytest

from data_manifests.sentences import split_sentences
from data_manifests.text_checks import (
    find_markup,
    shorthand_words,
    unreadable_characters,
    why_foreign,
    why_unreadable,
)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("**Nsuo** yɛ nkwa.", "Markdown"),
        ("# Nsuo\nNsuo yɛ nkwa.", "Markdown"),
        ("<p>Nsuo yɛ nkwa.</p>", "HTML"),
        ("Nsuo &amp; nkwa", "HTML"),
        ("```\nprint(1)\n```", "code"),
        ("{'a': 1}", "code"),
        ("Kɔ https://x.com", "a link"),
        ("Twerɛ kɔma ama@x.com", "a link"),
        ("Hwɛ [ha](x)", "a link"),
        ("| a | b |\n|---|---|", "a table"),
        ("Nneɛma yi:\n- nsuo\n- aduane", "a list"),
        ("1. Fa nsuo. 2. Noa no.", "a list"),
        ("  1) Fa nsuo.\n\n  2) Noa no.", "a list"),
        ("Nsuo yɛ nkwa. Ɛyɛ dɛ!", ""),
        ("Ɔwoo no afe 1957 - na ɛyɛ Kwasiada.", ""),
        ("Ɔpɛ no 2. Ɔpɛ no.", ""),
        ("5 < 6 na 7 > 6", ""),
    ],
)
def test_markup(text, kind):
    assert find_markup(text) == kind


def test_characters_that_nobody_reads():
    assert unreadable_characters("Ɛyɛ 🙂 % / $ 🙂") == "🙂%/$"
    assert unreadable_characters("$5 anaa 50% wɔ 13/3/1957") == ""
    assert unreadable_characters("Ɛyɛ GH¢5.50, “n'abɔdwe” – ŋ ẽ; 2021!") == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Kwame wc fie, na Esi kc.", ["wc", "kc"]),
        ("Amanfoc no bɛkc, bɛkc", ["Amanfoc", "bɛkc"]),
        ("Kwame wc fie, na Esi kɔ.", []),  # who has ɔ types it
        ("Me doctor no w) school, NDC, crew, cream, uncle, C", []),
    ],
)
def test_letters_typed_for_others_are_reported(text, words):
    assert shorthand_words(text) == words


@pytest.mark.parametrize(
    ("text", "loop"),
    [
        ("Ɛyɛ dɛ, ɛyɛ dɛ, ɛyɛ dɛ, ɛyɛ dɛ.", "ɛyɛ dɛ"),
        ("Kɔ na kɔ kɔ kɔ kɔ.", "kɔ"),
        ("Ɛyɛ paa paa paa!", ""),
        ("Ɔkɔɔ fie. Ɔkɔɔ fie bio. Ɔkɔɔ fie.", ""),
    ],
)
def test_loops(text, loop):
    left_out = why_unreadable(text, "answer")
    assert str(left_out) == (f"answer that goes in a loop: {loop}" if loop else "None")


def test_why_a_text_is_not_twi():
    assert why_foreign("Ɛyɛ nsuo na ɛwɔ hɔ.", "answer") is None
    assert why_foreign("Kofi Annan", "answer") is None
    assert str(why_foreign("It is the water of life.", "answer")) == "answer in English"
    left = why_foreign("Ɔkaa sɛ this is the best way na ɔkɔe wɔ fie hɔ.", "answer")
    assert left is not None and left.kind == "answer left in English in part"
    assert str(left).startswith(f"{left.kind}: this is the best")


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Nsuo yɛ. Ɛyɛ nkwa! Na wo?", ["Nsuo yɛ.", "Ɛyɛ nkwa!", "Na wo?"]),
        ("Ɔkaa sɛ: “Bra.” Ɔbae.", ["Ɔkaa sɛ: “Bra.”", "Ɔbae."]),
        ("Me ne no kɔɔ hɔ no. Ɛnnɛ nso.", ["Me ne no kɔɔ hɔ no.", "Ɛnnɛ nso."]),
        ("Dr. Mensah ne J. B. Danquah aba.", ["Dr. Mensah ne J. B. Danquah aba."]),
        ("Asɛm\n\n Nsuo yɛ. \nna ɛwɔ hɔ", ["Asɛm", "Nsuo yɛ.", "na ɛwɔ hɔ"]),
        ("Ɛbɔɔ 5.30 na ɔbae... na ɔkɔe.", ["Ɛbɔɔ 5.30 na ɔbae... na ɔkɔe."]),
        ("Afe bɛn? 1957.", ["Afe bɛn?", "1957."]),
        (" \n ", []),
    ],
)
def test_sentences(text, sentences):
    assert split_sentences(text) == sentences
