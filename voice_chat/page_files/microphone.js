// Passes the microphone's samples on, about 20 ms at a time.
const PIECE_SAMPLES = 1024;

class Microphone extends AudioWorkletProcessor {
  samples = new Float32Array(PIECE_SAMPLES);
  count = 0;

  process([[channel]]) {
    for (const sample of channel ?? []) {
      this.samples[this.count++] = sample;
      if (this.count === PIECE_SAMPLES) {
        this.port.postMessage(this.samples);
        this.count = 0;
      }
    }
    return true;
  }
}

registerProcessor("microphone", Microphone);
