"""The demo's voices: espeak-ng, which is given Twi as phonemes."""
