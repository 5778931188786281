"""How loud a quiet room is: digital silence does not occur where there is a microphone."""

ROOM_NOISE = 1e-4  # RMS, relative to full scale: -80 dB
