"""Recipes: one module per corpus, which turns the downloaded files into utterances.

    common_voice    Mozilla Common Voice, any release
    fisd            Financial Inclusion Speech Dataset: Asante, Akuapem, Fante
    bibletts        BibleTTS: one studio voice each for Asante and Akuapem
    waxal           Google WAXAL: spontaneous speech (aka_asr), studio voices (twi_tts, fat_tts)
    ugspeechdata    UGSpeechData, the source of WAXAL's spontaneous part
    audio_dataset   any Hugging Face audio dataset, by name or from disk
    recording       the type that all of them yield
    collect         reads them all, and copies their audio out of archives and tables

They share `delimited_table` (tables as text), `open_dataset` and `dataset_rows` (Hugging Face
datasets), and `dialect_names` (how file names and cells spell the dialects).

Each recipe's docstring states citation, licence, layout and known problems. A recipe yields every
usable row and reports, with the reason, each row it leaves out; `data_manifests.build` caps the
hours and assigns the splits.
"""
