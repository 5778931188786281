"""The demo's world: facts, a grammar of questions and answers, and spoken corpora made of them."""
