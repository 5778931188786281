"""The demo's tiny Mimi: its training, its quantiser, its evaluation."""
