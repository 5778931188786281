"""The demo's tiny Gemma 4: its tokenizer, its training to hear and to answer, its evaluation."""
