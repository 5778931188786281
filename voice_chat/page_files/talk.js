// The page's side of the protocol: voice_chat/realtime_protocol.py says what the events mean.
const ANSWER_RATE_HZ = 24000;
const PIECE_AHEAD_S = 0.06; // sound is scheduled so much ahead, or it would stutter
const MAX_WAIT_MS = 10000; // between two attempts to connect

const $ = (id) => document.getElementById(id);
const STATUS = {
  connecting: "Ɛrehwehwɛ … Connecting …",
  lost: "Nkitahodi no atwa; ɛresan ahwehwɛ … The connection is lost; trying again …",
  ready: "Mia “Tie me”, anaa kyerɛw. Press “Listen to me”, or write.",
  listening: "Merete. I am listening.",
  hearing: "Mete wo … I hear you …",
  thinking: "Medwen ho … Thinking …",
  refused: "Browser no amma mikrofon no. The browser did not give the microphone; you can still write.",
};

let socket = null;
let waitMs = 500;
let microphone = null; // {context, stream}, once it was given
let isListening = false; // hands free
let isHolding = false;

function show(status) {
  $("status").textContent = STATUS[status] ?? status;
  document.body.dataset.status = status;
}

function rest() {
  show(isListening ? "listening" : "ready");
}

// ---- conversation

const shown = { question: null, answer: null, endedMs: 0, sounds: false, pieces: [] };

function addLine(kind, text) {
  const line = document.createElement("p");
  line.className = kind;
  line.textContent = text;
  $("talk").append(line);
  line.scrollIntoView({ block: "end" });
  return line;
}

const on = {
  "session.created": (event) => {
    waitMs = 500;
    if (!$("voice").value) $("voice").value = event.session.audio.output.voice ?? "";
    if ($("talk").lastElementChild?.className.includes("note") === false)
      addLine("note", "Nkɔmmɔ foforo · A new conversation");
    tellSession();
    rest();
  },
  "input_audio_buffer.speech_started": () => show("hearing"),
  "input_audio_buffer.speech_stopped": () => {
    shown.endedMs = performance.now();
    rest();
  },
  "input_audio_buffer.committed": () => {
    shown.question = addLine("question spoken", "…");
  },
  "conversation.item.input_audio_transcription.completed": (event) => {
    if (shown.question) shown.question.textContent = event.transcript;
  },
  "response.created": () => {
    shown.answer = addLine("answer", "");
    shown.sounds = false;
    shown.pieces = [];
    show("thinking");
  },
  "response.output_audio_transcript.delta": addText,
  "response.output_text.delta": addText,
  "response.output_audio.delta": (event) => {
    if (!shown.sounds) {
      shown.sounds = true;
      $("latency").textContent = `${Math.round(performance.now() - shown.endedMs)} ms`;
      rest();
    }
    shown.pieces.push(play(event.delta));
  },
  "output_audio_buffer.held": () => player?.suspend(),
  "output_audio_buffer.resumed": () => player?.resume(),
  "output_audio_buffer.cleared": (event) => {
    if (playing.size) markCutOff();
    stopPlaying();
    if (event.question_continues) {
      shown.question?.remove();
      shown.answer?.remove();
      shown.question = null;
      show("hearing");
    }
  },
  "response.done": (event) => {
    const problem = event.response.status_details?.error?.message;
    if (problem) addLine("problem", problem);
    if (event.response.status === "cancelled") markCutOff();
    if (shown.answer?.textContent === "") shown.answer.remove();
    else if (shown.pieces.length) shown.answer.after(recordingOf(shown.pieces));
    shown.pieces = [];
    rest();
  },
  error: (event) => {
    addLine("problem", event.error.message);
    rest();
  },
};

function markCutOff() {
  if (!shown.answer.textContent.endsWith("…")) shown.answer.textContent += " …";
}

function addText(event) {
  shown.answer.textContent += event.delta;
}

function connect() {
  show(document.body.dataset.status === "lost" ? "lost" : "connecting");
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/v1/realtime`);
  socket.onmessage = (message) => {
    const event = JSON.parse(message.data);
    on[event.type]?.(event);
  };
  socket.onclose = () => {
    stopPlaying();
    show("lost");
    setTimeout(connect, waitMs);
    waitMs = Math.min(2 * Math.max(waitMs, 250), MAX_WAIT_MS);
  };
}

function send(event) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(event));
}

// ---- sound out

let player = null; // an AudioContext; browsers allow one after the first click or key only
let playAtS = 0;
let playing = new Set();

function play(base64) {
  player ??= new AudioContext({ sampleRate: ANSWER_RATE_HZ });
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const words = new Int16Array(bytes.buffer);
  const samples = Float32Array.from(words, (x) => x / 32768);
  const buffer = player.createBuffer(1, samples.length, ANSWER_RATE_HZ);
  buffer.copyToChannel(samples, 0);
  const piece = player.createBufferSource();
  piece.buffer = buffer;
  piece.connect(player.destination);
  playAtS = Math.max(playAtS, player.currentTime + PIECE_AHEAD_S);
  piece.start(playAtS);
  playAtS += buffer.duration;
  playing.add(piece);
  piece.onended = () => playing.delete(piece);
  return words;
}

// An answer to be heard again, or kept: a WAV, made here.
function recordingOf(pieces) {
  const count = pieces.reduce((sum, piece) => sum + piece.length, 0);
  const head = new DataView(new ArrayBuffer(44));
  const texts = { 0: "RIFF", 8: "WAVEfmt ", 36: "data" };
  for (const [at, text] of Object.entries(texts))
    [...text].forEach((c, i) => head.setUint8(Number(at) + i, c.charCodeAt(0)));
  head.setUint32(4, 36 + 2 * count, true);
  head.setUint32(16, 16, true); // length of the format
  head.setUint16(20, 1, true); // PCM
  head.setUint16(22, 1, true); // mono
  head.setUint32(24, ANSWER_RATE_HZ, true);
  head.setUint32(28, 2 * ANSWER_RATE_HZ, true);
  head.setUint16(32, 2, true);
  head.setUint16(34, 16, true);
  head.setUint32(40, 2 * count, true);
  const audio = document.createElement("audio");
  audio.controls = true;
  audio.src = URL.createObjectURL(new Blob([head, ...pieces], { type: "audio/wav" }));
  return audio;
}

function stopPlaying() {
  for (const piece of playing) piece.stop();
  playing = new Set();
  playAtS = 0;
  player?.resume(); // it may have been held
}

// ---- sound in

async function openMicrophone() {
  if (microphone) return true;
  try {
    // The browser takes what it plays out of what it hears, so that an answer does not interrupt
    // itself. Automatic gain makes first words up to 15 dB louder than the last, and they are
    // misheard: 77 of 100 questions were answered right with it and noise suppression, 88 with
    // neither. Noise suppression alone changed nothing (benchmarks/browser_microphone.py).
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: true, noiseSuppression: false, autoGainControl: false },
    });
    const context = new AudioContext();
    await context.audioWorklet.addModule("/page/microphone.js");
    const worklet = new AudioWorkletNode(context, "microphone", { numberOfOutputs: 0 });
    worklet.port.onmessage = (message) => {
      if (isListening || isHolding) sendSound(message.data);
    };
    context.createMediaStreamSource(stream).connect(worklet);
    microphone = { context, stream };
    tellSession();
    return true;
  } catch {
    show("refused");
    return false;
  }
}

// How fast the microphone's samples come, and what is to be done with what is said.
function tellSession() {
  const writes = $("write").checked;
  const session = {
    instructions: writes ? settings.write : $("text").value,
    output_modalities: [writes ? "text" : "audio"],
  };
  if ($("voice").value) session.voice = $("voice").value;
  if (microphone)
    session.audio = { input: { format: { type: "audio/pcm", rate: microphone.context.sampleRate } } };
  send({ type: "session.update", session });
}

function sendSound(samples) {
  const words = Int16Array.from(samples, (x) => Math.max(-32768, Math.min(32767, Math.round(32768 * x))));
  let text = "";
  for (const byte of new Uint8Array(words.buffer)) text += String.fromCharCode(byte);
  send({ type: "input_audio_buffer.append", audio: btoa(text) });
}

// ---- buttons

$("listen").onclick = async () => {
  if (!isListening && !(await openMicrophone())) return;
  isListening = !isListening;
  $("listen").setAttribute("aria-pressed", isListening);
  if (!isListening) send({ type: "input_audio_buffer.commit" });
  rest();
};

$("hold").onpointerdown = async () => {
  if (!(await openMicrophone())) return;
  isHolding = true;
  $("hold").setAttribute("aria-pressed", true);
};

for (const event of ["pointerup", "pointercancel", "pointerleave"]) {
  $("hold").addEventListener(event, () => {
    if (isHolding) send({ type: "input_audio_buffer.commit" });
    isHolding = false;
    $("hold").removeAttribute("aria-pressed");
  });
}

$("stop").onclick = () => {
  stopPlaying();
  send({ type: "response.cancel" });
};

function ask(text) {
  if (!text.trim()) return;
  addLine("question", text);
  shown.question = null;
  shown.endedMs = performance.now();
  send({ type: "conversation.item.create", item: { type: "message", role: "user", content: [{ type: "input_text", text }] } });
}

$("typed").onsubmit = (event) => {
  event.preventDefault();
  ask($("text").value);
  $("text").value = "";
  tellSession();
};

$("text").onchange = tellSession; // what is written there is said to Gemma beside the next speech
$("write").onchange = tellSession;
$("voice").onchange = tellSession;

$("new").onclick = () => {
  $("talk").replaceChildren();
  waitMs = 0;
  socket.close();
};

$("times").onchange = () => {
  $("latency").hidden = !$("times").checked;
};

const settings = await (await fetch("/page.json")).json();
for (const text of settings.examples) {
  const button = document.createElement("button");
  button.textContent = text;
  button.onclick = () => ask(text);
  const item = document.createElement("li");
  item.append(button);
  $("examples").querySelector("ul").append(item);
  $("examples").hidden = false;
}

// A voice that is none of these is heard at first where the server was given a recording.
for (const name of settings.voices) $("voice").append(new Option(name));
$("voice").selectedIndex = -1;
$("choose").hidden = settings.voices.length < 2;

connect();
