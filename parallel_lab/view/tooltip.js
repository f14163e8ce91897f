// Reading: numbers with units, and what a box says about itself in words.

const TIME_UNITS = [[1, "s"], [1e-3, "ms"], [1e-6, "µs"], [1e-9, "ns"]];
const BYTE_UNITS = [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "kB"]];

function formatSeconds(seconds) {
  if (seconds === 0) return "0 s";
  const [scale, unit] = TIME_UNITS.find(([s]) => Math.abs(seconds) >= s * 0.9995) || TIME_UNITS[3];
  const value = seconds / scale;
  return `${Math.abs(value) < 1000 ? value.toPrecision(3) : Math.round(value)} ${unit}`;
}

function formatBytes(count) {
  if (count < 10000) return `${count.toLocaleString("en")} B`;
  const [scale, unit] = BYTE_UNITS.find(([s]) => count >= s * 0.9995);
  return `${(count / scale).toPrecision(3)} ${unit}`;
}

function formatTime(time, data) {
  return data.slots ? `slot ${Math.round(time)}` : formatSeconds(time);
}

// All ticks of an axis share the unit that suits the end of the trace, and the decimals that suit their distance.
function formatTick(tick, step, data) {
  if (data.slots) return `${Math.round(tick)}`;
  const [scale, unit] = TIME_UNITS.find(([s]) => data.duration_s >= 2 * s) || TIME_UNITS[3];
  const digits = Math.max(0, Math.min(9, -Math.floor(Math.log10(step / scale) + 1e-9)));
  return `${(tick / scale).toFixed(digits)} ${unit}`;
}

// [name, value] pairs for the tooltip of one box; facts that it does not have are left out.
function facts(data, box) {
  const [rank, , , start, duration, kind, part, mb, peer, bytes, wait, line, count, cut] = box;
  const rows = [["operation", data.kinds[kind].name + (count > 1 ? ` (${count} together)` : "")], ["rank", `${rank}`]];
  if (count === 1 && part >= 0) rows.push(["part", `${part}`]);
  if (count === 1 && data.kinds[kind].counted) rows.push(["microbatch or round", `${mb}`]);
  if (peer >= 0) rows.push(["peer", `rank ${peer}`]);
  if (bytes > 0) rows.push(["bytes", count > 1 ? `${formatBytes(bytes)} in the first` : formatBytes(bytes)]);
  if (wait > 0) rows.push(["waited", formatSeconds(wait)]);
  rows.push(["start", formatTime(start, data)]);
  if (cut) rows.push(["end", "not before the run was cut short"]);
  else if (!data.slots) rows.push(["duration", formatSeconds(duration)]);
  if (data.lines[line]) rows.push(["line", data.lines[line]]);
  return rows;
}

function sentence(data, box) {
  return facts(data, box).map(([name, value]) => `${name} ${value}`).join(", ");
}
