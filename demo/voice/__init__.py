"""The demo's voices: espeak-ng, with Twi spelt in its phonemes."""
