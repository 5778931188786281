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

const shown = { question: null, answer: null, endedMs: 0, sounds: false };

function addLine(kind, text) {
  const line = document.createElement("p");
  line.className = kind;
  line.textContent = text;
  $("talk").append(line);
  line.scrollIntoView({ block: "end" });
  return line;
}

const on = {
  "session.created": () => {
    waitMs = 500;
    if (microphone) tellRate();
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
    show("thinking");
  },
  "response.output_audio_transcript.delta": (event) => {
    shown.answer.textContent += event.delta;
  },
  "response.output_audio.delta": (event) => {
    if (!shown.sounds) {
      shown.sounds = true;
      $("latency").textContent = `${Math.round(performance.now() - shown.endedMs)} ms`;
      rest();
    }
    play(event.delta);
  },
  "output_audio_buffer.held": () => player?.suspend(),
  "output_audio_buffer.resumed": () => player?.resume(),
  "output_audio_buffer.cleared": (event) => {
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
    if (event.response.status === "cancelled") shown.answer.textContent += " …";
    if (shown.answer?.textContent === "") shown.answer.remove();
    rest();
  },
  error: (event) => {
    addLine("problem", event.error.message);
    rest();
  },
};

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
    waitMs = Math.min(2 * waitMs, MAX_WAIT_MS);
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
  const samples = Float32Array.from(new Int16Array(bytes.buffer), (x) => x / 32768);
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
    tellRate();
    return true;
  } catch {
    show("refused");
    return false;
  }
}

function tellRate() {
  const format = { type: "audio/pcm", rate: microphone.context.sampleRate };
  send({ type: "session.update", session: { audio: { input: { format } } } });
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
};

$("times").onchange = () => {
  $("latency").hidden = !$("times").checked;
};

for (const text of await (await fetch("/examples.json")).json()) {
  const button = document.createElement("button");
  button.textContent = text;
  button.onclick = () => ask(text);
  const item = document.createElement("li");
  item.append(button);
  $("examples").querySelector("ul").append(item);
  $("examples").hidden = false;
}

connect();
