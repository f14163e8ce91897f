// The widget: builds its elements, turns events into a new view, and keeps the view in the model's traits.

// How far in one may zoom, as a share of the whole.
const NARROWEST = 1e-7;

// A stretch of `span` from about `start`, kept within the trace.
function clamped(start, span, whole) {
  const from = Math.max(0, Math.min(start, whole - span));
  return { start: from, end: from + span };
}

function boxesOf(data, rank) {
  return data.boxes.map((box, i) => [i, box]).filter(([, box]) => box[0] === rank)
    .sort(([, a], [, b]) => a[3] - b[3] || a[1] - b[1]).map(([i]) => i);
}

// The box of `rank` that starts nearest to `time`; -1 where the rank did nothing.
function nearest(data, rank, time) {
  return boxesOf(data, rank).reduce((best, i) =>
    best < 0 || Math.abs(data.boxes[i][3] - time) < Math.abs(data.boxes[best][3] - time) ? i : best, -1);
}

function boxAt(scene, data, view, x, y) {
  const slack = (2 / (scene.width - LEFT - RIGHT)) * (view.end - view.start);
  const time = xToTime(scene, view, x);
  // The last match is the one painted on top.
  return data.boxes.findLastIndex((box) => {
    const top = boxTop(scene, box);
    return y >= top && y < top + scene.lanes[box[1]].row &&
      time >= box[3] - slack / 2 && time <= box[3] + Math.max(box[4], slack);
  });
}

// The state of one timeline on the page: the view, what is selected, and how both change.
class Timeline {
  constructor(model, el) {
    this.model = model;
    this.data = model.get("data");
    this.whole = this.data.duration_s || 1;
    Object.assign(this, build(el, this.data));
    this.ctx = this.canvas.getContext("2d");
    this.scene = { ...measure(this.data), width: 0, ratio: 1, kinds: [] };
    this.view = { start: 0, end: this.whole, selected: -1, rank: 0 };
    this.frame = 0;
    this.drag = null;
    fillLegend(this.legend, this.data);
  }

  // Takes over what Python, or another view of the same widget, has set.
  readModel() {
    if (this.writing) return;
    const start = Math.max(0, Math.min(this.model.get("start_s"), this.whole));
    const end = Math.max(start + this.whole * NARROWEST, this.model.get("end_s"));
    const selected = this.model.get("selected");
    const rank = this.data.boxes[selected]?.[0] ?? this.view.rank;
    this.view = { start, end, selected, rank };
    this.redraw();
  }

  resize() {
    const { scene, canvas, data } = this;
    scene.width = Math.max(320, this.root.clientWidth || 800);
    scene.ratio = globalThis.devicePixelRatio || 1;
    canvas.width = Math.round(scene.width * scene.ratio);
    canvas.height = Math.round(scene.height * scene.ratio);
    canvas.style.width = `${scene.width}px`;
    canvas.style.height = `${scene.height}px`;
    scene.kinds = data.kinds.map((kind) => ({ ...kind, fill: hatch(this.ctx, kind, scene.ratio) }));
    this.redraw();
  }

  redraw() {
    const { start, end, selected, rank } = this.view;
    Object.assign(this.root.dataset, { start, end, selected, rank });
    // One painting a frame, however many events arrive.
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      const style = getComputedStyle(this.root);
      const theme = { ink: style.color, paper: style.backgroundColor, accent: style.outlineColor || style.color };
      paint(this.ctx, this.scene, this.data, this.view, theme);
    });
  }

  change(next) {
    this.view = { ...this.view, ...next };
    this.tip.style.display = "none";
    const { start, end, selected } = this.view;
    // Each set tells the listeners at once, and they must not read a view that is half the old one.
    this.writing = true;
    this.model.set("start_s", start);
    this.model.set("end_s", end);
    this.model.set("selected", selected);
    this.writing = false;
    this.model.save_changes();
    this.redraw();
  }

  pan(share, from = this.view) {
    const span = from.end - from.start;
    this.change(clamped(from.start + share * span, span, this.whole));
  }

  // Zooms about `time`, which stays where it is on the page, or comes to the middle where it was not in view.
  zoom(factor, time = this.middle()) {
    const { start, end } = this.view;
    const span = Math.min(this.whole, Math.max(this.whole * NARROWEST, (end - start) * factor));
    const share = (time - start) / (end - start);
    this.change(clamped(time - (share >= 0 && share <= 1 ? share : 0.5) * span, span, this.whole));
  }

  // The middle of the selected box; of the view where nothing is selected, or where one sees only a part of the box.
  middle() {
    const { start, end, selected } = this.view;
    const [, , , from, took] = this.data.boxes[selected] ?? [0, 0, 0, start, end - start];
    const time = from + took / 2;
    const inside = (time < start || time > end) && from <= start && from + took >= end;
    return inside ? (start + end) / 2 : time;
  }

  select(i) {
    const { data, scene, view } = this;
    const box = data.boxes[i];
    if (!box) return;
    const middle = box[3] + box[4] / 2;
    const hidden = box[3] + box[4] < view.start || box[3] > view.end;
    const span = view.end - view.start;
    this.change({ ...(hidden && clamped(middle - span / 2, span, this.whole)), selected: i, rank: box[0] });
    this.live.textContent = sentence(data, box);
    const x = Math.max(LEFT, Math.min(timeToX(scene, this.view, middle), scene.width - RIGHT));
    placeTip(this.tip, scene, facts(data, box), x, boxTop(scene, box));
  }

  clear() {
    this.live.textContent = "";
    this.change({ selected: -1 });
  }

  step(by) {
    const order = boxesOf(this.data, this.view.rank);
    const at = order.indexOf(this.view.selected);
    if (at < 0) return this.select(nearest(this.data, this.view.rank, this.view.start));
    this.select(order[Math.max(0, Math.min(order.length - 1, at + by))]);
  }

  changeRank(by) {
    const { data, view } = this;
    const rank = Math.max(0, Math.min(data.ranks - 1, view.rank + by));
    const found = nearest(data, rank, data.boxes[view.selected]?.[3] ?? view.start);
    if (found >= 0) return this.select(found);
    this.change({ rank, selected: -1 });
    this.live.textContent = `rank ${rank} did nothing`;
  }

  hover(x, y) {
    const i = boxAt(this.scene, this.data, this.view, x, y);
    if (i < 0) this.tip.style.display = "none";
    else placeTip(this.tip, this.scene, facts(this.data, this.data.boxes[i]), x, y);
  }

  click(x, y) {
    const i = boxAt(this.scene, this.data, this.view, x, y);
    if (i < 0) this.clear();
    else this.select(i);
  }
}

function listenToKeys(timeline) {
  const keys = {
    "+": () => timeline.zoom(0.5),
    "=": () => timeline.zoom(0.5),
    "-": () => timeline.zoom(2),
    ArrowLeft: (event) => (event.shiftKey ? timeline.step(-1) : timeline.pan(-0.1)),
    ArrowRight: (event) => (event.shiftKey ? timeline.step(1) : timeline.pan(0.1)),
    ArrowUp: () => timeline.changeRank(-1),
    ArrowDown: () => timeline.changeRank(1),
    Home: () => timeline.change({ start: 0, end: timeline.whole }),
    Escape: () => timeline.clear(),
  };
  timeline.root.addEventListener("keydown", (event) => {
    const act = event.ctrlKey || event.metaKey || event.altKey ? undefined : keys[event.key];
    if (!act) return;
    // The notebook has commands on these keys too.
    event.preventDefault();
    event.stopPropagation();
    act(event);
  });
}

function listenToPointer(timeline) {
  const { canvas, scene } = timeline;
  const inner = () => scene.width - LEFT - RIGHT;
  const on = (name, act) => canvas.addEventListener(name, act, { passive: false });
  on("wheel", (event) => {
    event.preventDefault();
    const sideways = event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY);
    if (sideways) return timeline.pan(Math.sign(event.deltaX || event.deltaY) * 0.1);
    timeline.zoom(event.deltaY > 0 ? 1.25 : 0.8, xToTime(scene, timeline.view, Math.max(LEFT, event.offsetX)));
  });
  on("pointerdown", (event) => {
    timeline.drag = { x: event.offsetX, from: timeline.view, moved: false };
    canvas.setPointerCapture(event.pointerId);
    timeline.root.focus({ preventScroll: true });
  });
  on("pointermove", (event) => {
    const drag = timeline.drag;
    if (!drag) return timeline.hover(event.offsetX, event.offsetY);
    drag.moved ||= Math.abs(event.offsetX - drag.x) > 3;
    if (drag.moved) timeline.pan((drag.x - event.offsetX) / inner(), drag.from);
  });
  on("pointerup", (event) => {
    if (timeline.drag && !timeline.drag.moved) timeline.click(event.offsetX, event.offsetY);
    timeline.drag = null;
  });
  on("pointercancel", () => (timeline.drag = null));
  on("pointerleave", () => (timeline.tip.style.display = "none"));
}

function render({ model, el }) {
  const timeline = new Timeline(model, el);
  listenToKeys(timeline);
  listenToPointer(timeline);
  const follow = () => timeline.readModel();
  const traits = ["change:start_s", "change:end_s", "change:selected"];
  for (const trait of traits) model.on(trait, follow);
  const sizes = new ResizeObserver(() => timeline.resize());
  const themes = new MutationObserver(() => timeline.redraw());
  themes.observe(document.body, { attributes: true });
  timeline.resize();
  timeline.readModel();
  sizes.observe(timeline.root);
  return () => {
    sizes.disconnect();
    themes.disconnect();
    cancelAnimationFrame(timeline.frame);
    for (const trait of traits) model.off(trait, follow);
  };
}

export default { render };
