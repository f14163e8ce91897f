// Painting: from the data and the stretch of time in view to pixels. Nothing here handles events.

const LEFT = 112, RIGHT = 12, TOP = 8, AXIS = 26;
const COMPUTE_ROW = 22, OTHER_ROW = 14, STRIP = 24, GAP = 8;

// Heights of lanes within a band, and of the whole picture, in CSS pixels.
function measure(data) {
  let at = 3;
  const lanes = data.lanes.map((lane) => {
    const row = lane.name === "compute" ? COMPUTE_ROW : OTHER_ROW;
    const place = { ...lane, top: at, row };
    at += row * lane.rows;
    return place;
  });
  const strip = data.memory.length ? STRIP : 0;
  const pitch = at + strip + 3 + GAP;
  return { lanes, strip, stripTop: at, pitch, height: TOP + data.ranks * pitch + AXIS };
}

// The same hatches as in the static figure, by their letters in matplotlib.
function hatch(ctx, kind, ratio) {
  if (!kind.hatch) return kind.color;
  const tile = document.createElement("canvas");
  const side = Math.round(8 * ratio);
  tile.width = tile.height = side;
  const pen = tile.getContext("2d");
  pen.fillStyle = kind.color;
  pen.fillRect(0, 0, side, side);
  pen.strokeStyle = pen.fillStyle = kind.ink;
  pen.lineWidth = 0.8 * ratio;
  const line = (x0, y0, x1, y1) => {
    pen.beginPath();
    pen.moveTo(x0 * side, y0 * side);
    pen.lineTo(x1 * side, y1 * side);
    pen.stroke();
  };
  const letter = kind.hatch[0];
  // Diagonals are drawn three times, so that they join across the edges of the tile.
  for (const shift of [-1, 0, 1]) {
    if (letter === "/" || letter === "x") line(shift, 1, shift + 1, 0);
    if (letter === "\\" || letter === "x") line(shift, 0, shift + 1, 1);
  }
  if (letter === "-" || letter === "+") line(0, 0.5, 1, 0.5);
  if (letter === "|" || letter === "+") line(0.5, 0, 0.5, 1);
  if (letter === ".") pen.fillRect(0.35 * side, 0.35 * side, 0.3 * side, 0.3 * side);
  const pattern = ctx.createPattern(tile, "repeat");
  if (pattern && pattern.setTransform) pattern.setTransform(new DOMMatrix().scale(1 / ratio));
  return pattern || kind.color;
}

// A round number of seconds (or slots) between ticks, for some eight of them, or fewer where the page is narrow.
function tickStep(span, whole, width) {
  const rough = span / Math.max(2, Math.min(8, width / 80)) || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((m) => m * power >= rough) * power;
  return whole ? Math.max(1, step) : step;
}

function boxTop(scene, box) {
  const lane = scene.lanes[box[1]];
  return TOP + box[0] * scene.pitch + lane.top + box[2] * lane.row;
}

function timeToX(scene, view, time) {
  return LEFT + ((time - view.start) / (view.end - view.start)) * (scene.width - LEFT - RIGHT);
}

function xToTime(scene, view, x) {
  return view.start + ((x - LEFT) / (scene.width - LEFT - RIGHT)) * (view.end - view.start);
}

function paintBands(ctx, scene, data, ink, view) {
  ctx.textBaseline = "middle";
  for (let rank = 0; rank < data.ranks; rank++) {
    const top = TOP + rank * scene.pitch;
    ctx.globalAlpha = rank === view.rank ? 0.13 : 0.06;
    ctx.fillStyle = ink;
    ctx.fillRect(LEFT, top, scene.width - LEFT - RIGHT, scene.pitch - GAP);
    ctx.globalAlpha = 1;
    ctx.textAlign = "left";
    ctx.font = "11.5px sans-serif";
    ctx.fillText(`rank ${rank}`, 4, top + (scene.pitch - GAP) / 2);
    ctx.font = "9.5px sans-serif";
    ctx.textAlign = "right";
    for (const lane of scene.lanes) {
      ctx.fillText(lane.name, LEFT - 5, top + lane.top + (lane.row * lane.rows) / 2);
    }
    if (scene.strip) ctx.fillText("memory", LEFT - 5, top + scene.stripTop + scene.strip / 2);
  }
}

function paintBox(ctx, scene, view, box, kind) {
  const left = timeToX(scene, view, box[3]);
  const right = timeToX(scene, view, box[3] + box[4]);
  if (right < LEFT || left > scene.width - RIGHT) return;
  const top = boxTop(scene, box);
  const row = scene.lanes[box[1]].row;
  const x = Math.max(left, LEFT);
  const width = Math.max(1, Math.min(right, scene.width - RIGHT) - x);
  ctx.fillStyle = width < 4 ? kind.color : kind.fill;
  ctx.fillRect(x, top, width, row - 1);
  if (width < 4) return;
  ctx.lineWidth = 0.6;
  ctx.strokeStyle = kind.ink;
  ctx.strokeRect(x + 0.3, top + 0.3, width - 0.6, row - 1.6);
  if (box[13]) {  // the run was cut short before this had ended
    ctx.lineWidth = 2;
    ctx.strokeStyle = "#222";
    ctx.setLineDash([6, 3]);
    ctx.strokeRect(x + 1, top + 1, width - 2, row - 3);
    ctx.setLineDash([]);
  }
  const label = box[13] ? "not ended" : box[12] === 1 && kind.counted ? `${box[7]}` : "";
  if (!label || width < 8 + 7 * label.length) return;
  ctx.font = "10px sans-serif";
  ctx.textAlign = "center";
  ctx.lineWidth = 3;
  ctx.strokeStyle = "rgba(255, 255, 255, 0.85)";
  ctx.strokeText(label, x + width / 2, top + row / 2);
  ctx.fillStyle = "#222";
  ctx.fillText(label, x + width / 2, top + row / 2);
}

function paintMemory(ctx, scene, data, view, ink) {
  const most = Math.max(1, ...data.memory.flatMap((levels) => levels.map((level) => level[1])));
  ctx.save();
  ctx.beginPath();
  ctx.rect(LEFT, 0, scene.width - LEFT - RIGHT, scene.height);
  ctx.clip();
  data.memory.forEach((levels, rank) => {
    if (!levels.length) return;
    const floor = TOP + rank * scene.pitch + scene.stripTop + scene.strip;
    const height = (bytes) => floor - (bytes / most) * (scene.strip - 3);
    ctx.beginPath();
    ctx.moveTo(timeToX(scene, view, levels[0][0]), floor);
    levels.forEach(([time, bytes], i) => {
      const until = i + 1 < levels.length ? levels[i + 1][0] : data.duration_s;
      ctx.lineTo(timeToX(scene, view, time), height(bytes));
      ctx.lineTo(timeToX(scene, view, until), height(bytes));
    });
    ctx.lineTo(timeToX(scene, view, data.duration_s), floor);
    ctx.fillStyle = ctx.strokeStyle = ink;
    ctx.globalAlpha = 0.25;
    ctx.fill();
    ctx.globalAlpha = 1;
    ctx.lineWidth = 1;
    ctx.stroke();
  });
  ctx.restore();
}

function paintAxis(ctx, scene, data, view, ink) {
  const step = tickStep(view.end - view.start, data.slots, scene.width - LEFT - RIGHT);
  const y = scene.height - AXIS + 2;
  ctx.fillStyle = ctx.strokeStyle = ink;
  ctx.font = "10.5px sans-serif";
  ctx.textAlign = "center";
  ctx.lineWidth = 1;
  for (let tick = Math.ceil(view.start / step - 1e-9) * step; tick <= view.end + step * 1e-9; tick += step) {
    const x = timeToX(scene, view, tick);
    ctx.beginPath();
    ctx.moveTo(x, y - 4);
    ctx.lineTo(x, y);
    ctx.stroke();
    // The last number would run over the edge.
    if (x < scene.width - RIGHT - 14) ctx.fillText(formatTick(tick, step, data), x, y + 11);
  }
}

function paint(ctx, scene, data, view, theme) {
  ctx.setTransform(scene.ratio, 0, 0, scene.ratio, 0, 0);
  ctx.fillStyle = theme.paper;
  ctx.fillRect(0, 0, scene.width, scene.height);
  paintBands(ctx, scene, data, theme.ink, view);
  for (const box of data.boxes) paintBox(ctx, scene, view, box, scene.kinds[box[5]]);
  if (scene.strip) paintMemory(ctx, scene, data, view, theme.ink);
  paintAxis(ctx, scene, data, view, theme.ink);
  const box = data.boxes[view.selected];
  if (!box) return;
  const left = timeToX(scene, view, box[3]);
  const right = Math.max(left + 2, timeToX(scene, view, box[3] + box[4]));
  if (right < LEFT || left > scene.width - RIGHT) return;
  ctx.strokeStyle = theme.accent;
  ctx.lineWidth = 2.5;
  const x = Math.max(left, LEFT);
  const width = Math.min(right, scene.width - RIGHT) - x;
  ctx.strokeRect(x - 1, boxTop(scene, box) - 1, width + 2, scene.lanes[box[1]].row + 1);
}
