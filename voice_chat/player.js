// Plays an answer while it is being spoken: the browser's side of voice_chat/web.py.
//
// Gradio runs this once for the component (`js_on_load` of gr.HTML), with `element`, `server`,
// `trigger` and `watch`. The component's value names the answer to play; its samples are fetched
// piece by piece and laid end to end on the clock of the browser's audio.

const SAMPLE_RATE_HZ = 24000;
// Heard this much later than it arrives: covers the time between two pieces.
const DELAY_S = 0.15;

let audio = null;
let latest = null; // name of the last answer that was played
let playing = null; // name of the answer that is arriving
let sources = [];
let end_s = 0; // when the last piece laid down will have been heard, on the clock of `audio`

const button = () => element.querySelector("button");

// Browsers give no sound before the user has touched the page.
function wakeAudio() {
  audio ??= new AudioContext({ sampleRate: SAMPLE_RATE_HZ });
  audio.resume();
}
for (const gesture of ["pointerdown", "keydown"]) document.addEventListener(gesture, wakeAudio);

function stopSpeaking() {
  playing = null;
  for (const source of sources) source.stop();
  sources = [];
  end_s = 0;
  button().hidden = true;
}
window.stopSpeaking = stopSpeaking;

function lay(samplesBase64) {
  const bytes = Uint8Array.from(atob(samplesBase64), (letter) => letter.charCodeAt(0));
  const samples = new Int16Array(bytes.buffer);
  if (samples.length === 0) return;
  const buffer = audio.createBuffer(1, samples.length, SAMPLE_RATE_HZ);
  buffer.copyToChannel(Float32Array.from(samples, (sample) => sample / 32768), 0);
  const source = audio.createBufferSource();
  source.buffer = buffer;
  source.connect(audio.destination);
  source.onended = () => {
    sources = sources.filter((other) => other !== source);
    if (sources.length === 0 && playing === null) button().hidden = true;
  };
  if (end_s <= audio.currentTime) end_s = audio.currentTime + DELAY_S;
  source.start(end_s);
  end_s += buffer.duration;
  sources.push(source);
}

async function play(answer) {
  stopSpeaking();
  wakeAudio();
  playing = answer;
  button().hidden = false;
  while (playing === answer) {
    const piece = await server.next_sound(answer);
    if (playing !== answer) return;
    if (piece === null) {
      playing = null; // all is laid down; the last source hides the button
      if (sources.length === 0) button().hidden = true;
      return;
    }
    lay(piece);
  }
}

watch("value", () => {
  // The value is also set again to what it was, with every text that is shown.
  if (props.value && props.value !== latest) play((latest = props.value));
});
element.addEventListener("click", (event) => {
  if (event.target.tagName !== "BUTTON") return;
  stopSpeaking();
  trigger("click");
});
