// The clock: counts down what Python has set, times an answer, and reads a text out if the browser has a voice.

const LATE_S = 60; // from here on the time is in another color
const ANNOUNCED_MIN = [10, 5, 2, 1]; // minutes that are said to screen readers, once each

const clockText = (s) => `${Math.floor(Math.max(s, 0) / 60)}:${String(Math.floor(Math.max(s, 0) % 60)).padStart(2, "0")}`;
const filled = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");

// The best voice for `language`: the same region first, then the same language; undefined where there is none. Voices
// that send the text to a server are left out.
function voiceFor(all, language) {
  const voices = all.filter((v) => v.localService !== false);
  const plain = (tag) => tag.toLowerCase().replace("_", "-");
  const wanted = plain(language);
  return voices.find((v) => plain(v.lang) === wanted) ?? voices.find((v) => plain(v.lang).split("-")[0] === wanted.split("-")[0]);
}

function element(tag, name, parent) {
  const one = document.createElement(tag);
  if (name) one.className = name;
  parent.append(one);
  return one;
}

class Face {
  constructor(model, el) {
    this.model = model;
    this.words = model.get("words");
    this.announced = new Set();
    this.root = element("div", "plab-clock", el);
    this.root.setAttribute("role", "group");
    this.root.tabIndex = -1;
    this.time = element("span", "plab-clock-time", this.root);
    this.time.setAttribute("role", "timer");
    this.time.setAttribute("aria-label", this.words.left);
    element("span", "", this.root).textContent = this.words.left;
    this.start = element("button", "", this.root);
    this.guide = element("progress", "", this.root);
    this.count = element("span", "", this.root);
    this.read = element("button", "", this.root);
    const label = element("label", "", this.root);
    this.aloud = element("input", "", label);
    this.aloud.type = "checkbox";
    label.append(` ${this.words.aloud}`);
    this.label = label;
    this.silent = element("span", "", this.root);
    this.said = element("span", "plab-clock-said", this.root);
    this.said.setAttribute("aria-live", "polite");
    this.speech = globalThis.speechSynthesis;
    this.start.addEventListener("click", () => this.begin());
    this.read.addEventListener("click", () => (this.speech?.speaking ? this.hush() : this.speak()));
    this.aloud.addEventListener("change", () => this.keep("aloud", this.aloud.checked));
  }

  keep(name, value) {
    this.model.set(name, value);
    this.model.save_changes();
  }

  // Takes over what Python has set.
  set() {
    this.hush();
    this.from = performance.now();
    this.left = this.model.get("left_s");
    this.began = null;
    const seconds = this.model.get("speak_s");
    for (const one of [this.start, this.guide, this.count]) one.hidden = !seconds;
    this.start.textContent = filled(this.words.speak, { seconds });
    Object.assign(this.guide, { max: seconds || 1, value: 0 });
    this.guide.setAttribute("aria-label", filled(this.words.speak, { seconds }));
    this.count.textContent = "";
    this.aloud.checked = this.model.get("aloud");
    this.voices();
    if (this.model.get("unasked") && this.aloud.checked && this.model.get("text")) this.speak();
    if (this.model.get("fresh") && this.model.get("beat") > 1) this.comeIntoView();
    this.tick();
  }

  // The button that was pressed is gone with its turn: the page scrolls back, and the keyboard goes on from here.
  comeIntoView() {
    const { bottom, top } = this.root.getBoundingClientRect();
    if (bottom < 60 || top > window.innerHeight - 60) this.root.scrollIntoView({ block: "start" });
    if (document.activeElement === document.body || !document.activeElement) this.root.focus({ preventScroll: true });
  }

  // Shows what can be read out; the list of voices may come late.
  voices() {
    this.voice = this.speech && voiceFor(this.speech.getVoices(), this.model.get("language"));
    this.read.hidden = this.label.hidden = !this.voice || !this.model.get("text");
    this.silent.textContent = this.voice || !this.model.get("text") ? "" : this.words.silent;
    this.read.textContent = this.words.read;
  }

  speak() {
    if (!this.voice) return;
    const one = new SpeechSynthesisUtterance(this.model.get("text"));
    Object.assign(one, { voice: this.voice, lang: this.voice.lang });
    one.onend = one.onerror = () => (this.read.textContent = this.words.read);
    this.speech.cancel();
    this.speech.speak(one);
    this.read.textContent = this.words.stop;
  }

  hush() {
    this.speech?.cancel();
    this.read.textContent = this.words.read;
  }

  begin() {
    this.hush();
    this.began = performance.now();
    this.start.textContent = this.words.again;
    this.tick();
  }

  tick() {
    if (!this.model.get("running")) return this.hush();
    const now = performance.now();
    const left = this.left - (now - this.from) / 1000;
    this.time.textContent = clockText(left);
    this.root.classList.toggle("plab-clock-late", left < LATE_S);
    this.announce(left);
    if (this.began !== null) this.follow((now - this.began) / 1000);
    if (left <= 0 && !this.model.get("over")) {
      this.said.textContent = this.words.over;
      this.keep("over", true);
    }
  }

  announce(left) {
    const due = ANNOUNCED_MIN.find((minutes) => left <= 60 * minutes && left > 60 * minutes - 5);
    if (due === undefined || this.announced.has(due)) return;
    this.announced.add(due);
    this.said.textContent = filled(this.words.minutes, { minutes: due });
  }

  follow(spoken) {
    const seconds = this.model.get("speak_s");
    this.guide.value = Math.min(spoken, seconds);
    this.count.textContent = `${Math.floor(spoken)} / ${seconds} s`;
    if (spoken < seconds || this.start.dataset.beat === String(this.began)) return;
    this.start.dataset.beat = String(this.began);
    this.said.textContent = filled(this.words.spoken, { seconds });
  }
}

function render({ model, el }) {
  const face = new Face(model, el);
  const set = () => face.set();
  const stopped = () => face.tick();
  const voices = () => face.voices();
  model.on("change:beat", set);
  model.on("change:running", stopped);
  face.speech?.addEventListener?.("voiceschanged", voices);
  face.set();
  const timer = setInterval(() => face.tick(), 250);
  return () => {
    clearInterval(timer);
    face.hush();
    face.speech?.removeEventListener?.("voiceschanged", voices);
    model.off("change:beat", set);
    model.off("change:running", stopped);
  };
}

export default { render };
